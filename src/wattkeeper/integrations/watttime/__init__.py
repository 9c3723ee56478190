"""WattTime: marginal and average emissions rates of a grid region, every five minutes."""
