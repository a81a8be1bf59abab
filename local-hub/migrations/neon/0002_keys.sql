-- A key that acts for one project of its organization alone, and what a list of keys says of their use.
ALTER TABLE neon.api_keys
    ADD COLUMN project_id text REFERENCES neon.projects ON DELETE CASCADE,
    ADD COLUMN last_used_at timestamptz,
    ADD CHECK (project_id IS NULL OR kind = 'organization');
