-- Polls in the hands of jobs are found by partner, so that their calls can be reserved.

CREATE INDEX scopes_claimed ON bibwire.scopes (partner_id) WHERE claimed_until IS NOT NULL;
