"""Who may ask: tenants, keys, principals and their roles."""
