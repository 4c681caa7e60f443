"""The report: pages, sentences, number formats, tables, figures, templates."""
