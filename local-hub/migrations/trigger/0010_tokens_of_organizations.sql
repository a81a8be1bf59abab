-- An organization's token is nobody's: it opens that organization's projects, and no account.
ALTER TABLE trigger.access_tokens
    ADD COLUMN organization_id text REFERENCES trigger.organizations (id) ON DELETE CASCADE;
