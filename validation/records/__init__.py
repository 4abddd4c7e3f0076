"""Results as data: one typed, versioned JSON schema. Imports no statistics."""
