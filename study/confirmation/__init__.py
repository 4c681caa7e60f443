"""Fresh seeds of the chosen configurations: plan, director, runs, the test split and the count of its reads."""
