"""The routes of the HTTP API and their OpenAPI document."""
