"""Network UPS Tools: what UPS, PDUs and transfer switches tell through upsd."""
