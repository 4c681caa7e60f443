"""Ray: the connection, the Tune run, trials that hang, and autoscaling."""
