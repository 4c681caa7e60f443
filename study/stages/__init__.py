"""The stages of a study, from its launch to its interventions, and the loop that runs them."""
