"""The service around the mechanism: calendar, rules, policy, and devices that live through its months."""
