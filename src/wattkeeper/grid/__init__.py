"""The grid around a site: signals fetched from those who publish them, shown, and carried into the next days."""
