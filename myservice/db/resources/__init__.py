"""Resources, and what belongs to them: metadata, tags, claims."""
