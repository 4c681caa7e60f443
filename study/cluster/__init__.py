"""Ray: the connection, the Tune run, trials that hang, autoscaling, and the cost of trials."""
