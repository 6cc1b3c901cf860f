"""The pages of README.md and docs/ do what they say."""
