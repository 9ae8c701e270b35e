-- Schema `analytics`: six flows, the ledger, replays, dead_letters and delivery_log. Names are a contract: add columns, never rename.
--
-- Amazon Redshift's dialect. VARCHAR lengths are bytes. Distribution keeps what is joined on one node (a page view, its
-- ads and its engagement share page_view_id), sorting makes the views' time ranges cheap. Columns follow the order of the
-- files; what a file does not have (loaded_at) is filled by its default. Times are UTC.
-- Every statement may run again: it changes nothing that is there.

CREATE SCHEMA IF NOT EXISTS analytics;


-- First events with all fields of their second, where one joined.
CREATE TABLE IF NOT EXISTS analytics.page_views (
    event_id               VARCHAR(64),
    page_view_id           VARCHAR(64),
    visitor_id             VARCHAR(64),
    occurred_at            TIMESTAMP,
    received_at            TIMESTAMP,
    country                VARCHAR(128),
    region                 VARCHAR(128),
    city                   VARCHAR(128),
    browser                VARCHAR(64),
    os                     VARCHAR(64),
    device                 VARCHAR(64),
    properties             VARCHAR(32768),
    batch_id               VARCHAR(36) NOT NULL,
    line                   INTEGER NOT NULL,
    txn_id                 VARCHAR(64) NOT NULL,
    url                    VARCHAR(4096),
    referrer               VARCHAR(4096),
    referrer_medium        VARCHAR(64),
    referrer_source        VARCHAR(256),
    article_id             VARCHAR(128),
    author_id              VARCHAR(128),
    section                VARCHAR(128),
    campaign_id            VARCHAR(128),
    joined                 BOOLEAN,
    engagement_id          VARCHAR(64),
    engaged_at             TIMESTAMP,
    dwell_ms               BIGINT,
    visible_ms             BIGINT,
    scroll_pct             SMALLINT,
    engagement_properties  VARCHAR(32768),
    article_title          VARCHAR(1024),
    campaign_name          VARCHAR(1024),
    campaign_network       VARCHAR(128),
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE KEY DISTKEY (page_view_id)
SORTKEY (received_at);


-- An ad was shown on a page view.
CREATE TABLE IF NOT EXISTS analytics.ad_impressions (
    event_id               VARCHAR(64),
    page_view_id           VARCHAR(64),
    visitor_id             VARCHAR(64),
    occurred_at            TIMESTAMP,
    received_at            TIMESTAMP,
    country                VARCHAR(128),
    region                 VARCHAR(128),
    city                   VARCHAR(128),
    browser                VARCHAR(64),
    os                     VARCHAR(64),
    device                 VARCHAR(64),
    properties             VARCHAR(32768),
    batch_id               VARCHAR(36) NOT NULL,
    line                   INTEGER NOT NULL,
    txn_id                 VARCHAR(64) NOT NULL,
    article_id             VARCHAR(128),
    campaign_id            VARCHAR(128),
    ad_slot                SMALLINT,
    creative_id            VARCHAR(128),
    revenue_micros         BIGINT,
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE KEY DISTKEY (page_view_id)
SORTKEY (received_at);


-- An ad was clicked on a page view.
CREATE TABLE IF NOT EXISTS analytics.ad_clicks (
    event_id               VARCHAR(64),
    page_view_id           VARCHAR(64),
    visitor_id             VARCHAR(64),
    occurred_at            TIMESTAMP,
    received_at            TIMESTAMP,
    country                VARCHAR(128),
    region                 VARCHAR(128),
    city                   VARCHAR(128),
    browser                VARCHAR(64),
    os                     VARCHAR(64),
    device                 VARCHAR(64),
    properties             VARCHAR(32768),
    batch_id               VARCHAR(36) NOT NULL,
    line                   INTEGER NOT NULL,
    txn_id                 VARCHAR(64) NOT NULL,
    article_id             VARCHAR(128),
    campaign_id            VARCHAR(128),
    ad_slot                SMALLINT,
    creative_id            VARCHAR(128),
    revenue_micros         BIGINT,
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE KEY DISTKEY (page_view_id)
SORTKEY (received_at);


-- A paid redirect brought a visitor, and what it cost.
CREATE TABLE IF NOT EXISTS analytics.redirects (
    event_id               VARCHAR(64),
    page_view_id           VARCHAR(64),
    visitor_id             VARCHAR(64),
    occurred_at            TIMESTAMP,
    received_at            TIMESTAMP,
    country                VARCHAR(128),
    region                 VARCHAR(128),
    city                   VARCHAR(128),
    browser                VARCHAR(64),
    os                     VARCHAR(64),
    device                 VARCHAR(64),
    properties             VARCHAR(32768),
    batch_id               VARCHAR(36) NOT NULL,
    line                   INTEGER NOT NULL,
    txn_id                 VARCHAR(64) NOT NULL,
    url                    VARCHAR(4096),
    referrer               VARCHAR(4096),
    article_id             VARCHAR(128),
    campaign_id            VARCHAR(128),
    cost_micros            BIGINT,
    campaign_name          VARCHAR(1024),
    campaign_network       VARCHAR(128),
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE KEY DISTKEY (campaign_id)
SORTKEY (received_at);


-- Second events that met no first event, with the reason: no_first, late or extra.
CREATE TABLE IF NOT EXISTS analytics.engagements (
    event_id               VARCHAR(64),
    page_view_id           VARCHAR(64),
    visitor_id             VARCHAR(64),
    occurred_at            TIMESTAMP,
    received_at            TIMESTAMP,
    country                VARCHAR(128),
    region                 VARCHAR(128),
    city                   VARCHAR(128),
    browser                VARCHAR(64),
    os                     VARCHAR(64),
    device                 VARCHAR(64),
    properties             VARCHAR(32768),
    batch_id               VARCHAR(36) NOT NULL,
    line                   INTEGER NOT NULL,
    txn_id                 VARCHAR(64) NOT NULL,
    dwell_ms               BIGINT,
    visible_ms             BIGINT,
    scroll_pct             SMALLINT,
    reason                 VARCHAR(16),
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE KEY DISTKEY (page_view_id)
SORTKEY (received_at);


-- Bots and malformed lines, with the rule that caught them.
CREATE TABLE IF NOT EXISTS analytics.rejected (
    event_id               VARCHAR(64),
    event_type             VARCHAR(32),
    kind                   VARCHAR(16) NOT NULL,
    reason                 VARCHAR(256),
    user_agent             VARCHAR(1024),
    ip                     VARCHAR(64),
    payload                VARCHAR(4096),
    received_at            TIMESTAMP,
    batch_id               VARCHAR(36) NOT NULL,
    line                   INTEGER NOT NULL,
    txn_id                 VARCHAR(64) NOT NULL,
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE EVEN
SORTKEY (received_at);


-- What became of each line of each batch: line_set is a Roaring bitmap in base64 with `lines` members.
CREATE TABLE IF NOT EXISTS analytics.ledger (
    txn_id                 VARCHAR(64) NOT NULL,
    batch_id               VARCHAR(36) NOT NULL,
    outcome                VARCHAR(32) NOT NULL,
    lines                  INTEGER NOT NULL,
    line_set               VARCHAR(65535) NOT NULL,
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE KEY DISTKEY (batch_id)
SORTKEY (batch_id);


-- Blocks that came again and were dropped whole.
CREATE TABLE IF NOT EXISTS analytics.replays (
    txn_id                 VARCHAR(64) NOT NULL,
    batch_id               VARCHAR(36) NOT NULL,
    block                  INTEGER NOT NULL,
    attempt                INTEGER NOT NULL,
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE KEY DISTKEY (batch_id)
SORTKEY (batch_id);


-- Blocks that could not be read and were set aside with their reason. Their lines are in no ledger: the audit sends the batch
-- again. source_offset is the message's place in its partition of topic `blocks`; without a batch it was no block at all.
CREATE TABLE IF NOT EXISTS analytics.dead_letters (
    txn_id                 VARCHAR(64) NOT NULL,
    batch_id               VARCHAR(36),
    block                  INTEGER,
    attempt                INTEGER,
    source_offset          BIGINT,
    reason                 VARCHAR(1024),
    loaded_at              TIMESTAMP DEFAULT GETDATE()
)
DISTSTYLE KEY DISTKEY (batch_id)
SORTKEY (batch_id);


-- What delivery has decided about each transaction of each partition's chain. Its highest number is where the walk goes on;
-- whoever loads locks it first. stream_time is how far the partition's time had come; rows counts all outputs.
CREATE TABLE IF NOT EXISTS analytics.delivery_log (
    txn_id                 VARCHAR(64) NOT NULL,
    epoch                  INTEGER NOT NULL,
    "partition"            INTEGER NOT NULL,
    number                 BIGINT NOT NULL,
    status                 VARCHAR(16) NOT NULL,
    load_id                VARCHAR(64),
    "rows"                 BIGINT NOT NULL,
    stream_time            TIMESTAMP,
    detail                 VARCHAR(4096),
    loaded_at              TIMESTAMP DEFAULT GETDATE(),
    PRIMARY KEY (txn_id)
)
DISTSTYLE ALL
SORTKEY (number);
