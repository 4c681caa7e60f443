"""Ray: connection, the Tune run, the watch over trials that hang, autoscaling, trial costs."""
