"""Images in registries: where they are, who may read them, how they are fetched and sent (OCI distribution-spec)."""
