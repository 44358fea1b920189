-- The original's tables, as far as moving in reads them or the compatibility views stand for them.

CREATE TABLE timing_partners (
    timing_partner_id serial PRIMARY KEY,
    company_name varchar(255) NOT NULL,
    access_password varchar(255),
    created_at timestamp DEFAULT now(),
    updated_at timestamp DEFAULT now()
);

CREATE TABLE providers (
    provider_id serial PRIMARY KEY,
    name varchar(100) NOT NULL UNIQUE,
    provider_type varchar(50),
    api_base_url varchar(255),
    rate_limit_per_hour integer
);

CREATE TABLE partner_provider_credentials (
    partner_provider_credential_id serial PRIMARY KEY,
    provider_id integer REFERENCES providers,
    timing_partner_id integer REFERENCES timing_partners,
    principal varchar(255),
    secret varchar(255),
    credential_type varchar(50),
    additional_config jsonb
);

CREATE TABLE runsignup_races (
    race_id integer PRIMARY KEY,
    name text,
    last_date timestamp,
    last_end_date timestamp,
    next_date timestamp,
    next_end_date timestamp,
    is_draft_race boolean,
    is_private_race boolean,
    is_registration_open boolean,
    created timestamp,
    last_modified timestamp,
    description text,
    url varchar(255),
    external_race_url varchar(255),
    external_results_url varchar(255),
    fb_page_id varchar(50),
    fb_event_id varchar(50),
    address jsonb,
    timezone varchar(50),
    logo_url varchar(255),
    real_time_notifications_enabled boolean,
    fetched_date timestamp DEFAULT now(),
    credentials_used varchar(255),
    timing_partner_id integer REFERENCES timing_partners,
    created_at timestamp DEFAULT now()
);

CREATE TABLE runsignup_events (
    event_id integer PRIMARY KEY,
    race_id integer,
    name text,
    details text,
    start_time timestamp,
    end_time timestamp,
    age_calc_base_date date,
    registration_opens timestamp,
    event_type varchar(50),
    distance numeric(10, 2),
    volunteer boolean,
    require_dob boolean,
    require_phone boolean,
    giveaway text,
    fetched_date timestamp DEFAULT now(),
    credentials_used varchar(255),
    timing_partner_id integer REFERENCES timing_partners,
    created_at timestamp DEFAULT now()
);

CREATE TABLE runsignup_participants (
    id serial PRIMARY KEY,
    race_id integer,
    event_id integer,
    registration_id integer,
    user_id integer,
    first_name varchar(100),
    middle_name varchar(100),
    last_name varchar(100),
    email varchar(255),
    address jsonb,
    dob date,
    gender varchar(20),
    phone varchar(20),
    profile_image_url varchar(255),
    bib_num varchar(20),
    chip_num varchar(20),
    age integer,
    registration_date timestamp,
    team_info jsonb,
    payment_info jsonb,
    additional_data jsonb,
    last_modified timestamp,
    fetched_date timestamp DEFAULT now(),
    credentials_used varchar(255),
    timing_partner_id integer,
    created_at timestamp DEFAULT now()
);

CREATE TABLE sync_history (
    sync_history_id serial PRIMARY KEY,
    timing_partner_id integer REFERENCES timing_partners,
    provider_id integer REFERENCES providers,
    event_id varchar(100),
    operation_type varchar(50),
    sync_direction varchar(50),
    sync_time timestamp DEFAULT now(),
    status varchar(20),
    num_of_synced_records integer DEFAULT 0,
    entries_success integer DEFAULT 0,
    entries_failed integer DEFAULT 0,
    error_details jsonb,
    duration_seconds integer,
    reason text
);

-- The views over all providers, reduced to RunSignup.
CREATE VIEW unified_participants AS
SELECT
    'runsignup' AS source_provider, timing_partner_id, event_id::varchar, first_name, last_name, email, gender,
    bib_num AS bib_number, address ->> 'city' AS city, address ->> 'state' AS state, age, registration_date,
    fetched_date
FROM runsignup_participants;

CREATE VIEW unified_events AS
SELECT
    'runsignup' AS source_provider, timing_partner_id, event_id::varchar, name AS event_name,
    start_time AS event_date, fetched_date
FROM runsignup_events;
