"""The report of a study: pages, sentences, number formats, tables, figures and templates."""
