-- The shortage a plan keeps is the one that was told, so that what grows little by little is told too.

COMMENT ON COLUMN bibwire.plans.short_from IS 'Begin of the time at which the calls will not suffice, as last told; null: none was told, or it is over.';
COMMENT ON COLUMN bibwire.plans.short_until IS 'Its end; null: none was in sight.';
COMMENT ON COLUMN bibwire.plans.short_calls_per_hour IS 'Calls an hour that were said to be needed then.';
