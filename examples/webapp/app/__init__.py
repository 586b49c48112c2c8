"""A web service that says hello and counts its visitors."""
