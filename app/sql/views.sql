-- The views for analysts. Each view reads the tables of schema `analytics` alone and runs on Redshift and PostgreSQL alike.
-- Money is in micros (a millionth of the currency), times are UTC, shares are between 0 and 1. Values to average or divide are
-- cast first: Redshift's AVG keeps the scale of a NUMERIC (a share of 0.6667 would read 0.7), and integers divide to integers.

-- Does a campaign earn what it costs? Income is the revenue of every ad impression and click on a page view that belongs to
-- the campaign; cost is the price of its paid redirects. A page view with several campaigns belongs to the one of its earliest event.
-- roi is profit / cost: 0.25 means that 1.00 spent came back as 1.25; NULL where nothing was spent.
-- Amounts of two currencies are never added: a campaign has one row for each currency of its money (NULL: the events name none).
-- page_views counts all of the campaign's page views, so it is the same in each of its rows; the other figures are of the
-- row's currency alone.
CREATE OR REPLACE VIEW analytics.campaign_profit AS
WITH firsts AS (
    SELECT page_view_id, campaign_id, campaign_name,
           ROW_NUMBER() OVER (PARTITION BY page_view_id ORDER BY received_at, event_id) AS place
    FROM analytics.page_views
), views AS (
    SELECT page_view_id, campaign_id, campaign_name FROM firsts WHERE place = 1 AND campaign_id IS NOT NULL
), visits AS (
    SELECT campaign_id, MAX(campaign_name) AS campaign_name, COUNT(*) AS page_views FROM views GROUP BY campaign_id
), ads AS (
    SELECT page_view_id, revenue_micros, currency FROM analytics.ad_impressions
    UNION ALL
    SELECT page_view_id, revenue_micros, currency FROM analytics.ad_clicks
), amounts AS (
    SELECT v.campaign_id, CAST(NULL AS VARCHAR(1024)) AS campaign_name, a.currency, 0 AS redirects,
           COALESCE(a.revenue_micros, 0) AS income_micros, 0 AS cost_micros
    FROM views v JOIN ads a ON a.page_view_id = v.page_view_id
    UNION ALL
    SELECT campaign_id, campaign_name, currency, 1, 0, COALESCE(cost_micros, 0)
    FROM analytics.redirects WHERE campaign_id IS NOT NULL
), summed AS (
    SELECT campaign_id, currency, MAX(campaign_name) AS campaign_name, SUM(redirects) AS redirects,
           SUM(income_micros) AS income_micros, SUM(cost_micros) AS cost_micros
    FROM amounts GROUP BY campaign_id, currency
)
SELECT COALESCE(r.campaign_id, s.campaign_id) AS campaign_id,
       COALESCE(r.campaign_name, s.campaign_name) AS campaign_name,
       COALESCE(r.page_views, 0) AS page_views,
       COALESCE(s.redirects, 0) AS redirects,
       COALESCE(s.income_micros, 0) AS income_micros,
       COALESCE(s.cost_micros, 0) AS cost_micros,
       COALESCE(s.income_micros, 0) - COALESCE(s.cost_micros, 0) AS profit_micros,
       CAST(COALESCE(s.income_micros, 0) - COALESCE(s.cost_micros, 0) AS DOUBLE PRECISION)
           / NULLIF(CAST(COALESCE(s.cost_micros, 0) AS DOUBLE PRECISION), 0) AS roi,
       s.currency AS currency
FROM visits r FULL OUTER JOIN summed s ON s.campaign_id = r.campaign_id;

-- Which articles are read, and how? The last 7 days, one row an article. joined_share is the share of views whose engagement
-- arrived; the means are over those views that have the figure; revenue is of the ads on the article's page views: an ad that
-- names no article counts for the article of its page view. revenue_micros is NULL if the ads are of more than one currency,
-- because their amounts cannot be added; currency is theirs if they have one.
CREATE OR REPLACE VIEW analytics.popular_articles AS
WITH firsts AS (
    SELECT page_view_id, article_id,
           ROW_NUMBER() OVER (PARTITION BY page_view_id ORDER BY received_at, event_id) AS place
    FROM analytics.page_views
    WHERE received_at >= GETDATE() - INTERVAL '7 days'
), ads AS (
    SELECT page_view_id, article_id, revenue_micros, currency FROM analytics.ad_impressions
    WHERE received_at >= GETDATE() - INTERVAL '7 days'
    UNION ALL
    SELECT page_view_id, article_id, revenue_micros, currency FROM analytics.ad_clicks
    WHERE received_at >= GETDATE() - INTERVAL '7 days'
), revenue AS (
    SELECT COALESCE(a.article_id, f.article_id) AS article_id, SUM(COALESCE(a.revenue_micros, 0)) AS revenue_micros,
           MAX(a.currency) AS currency, COUNT(DISTINCT COALESCE(a.currency, '')) AS currencies
    FROM ads a LEFT JOIN firsts f ON f.page_view_id = a.page_view_id AND f.place = 1
    GROUP BY COALESCE(a.article_id, f.article_id)
), reading AS (
    SELECT article_id, MAX(article_title) AS article_title, MAX(author_id) AS author_id, MAX(section) AS section,
           COUNT(*) AS page_views, COUNT(DISTINCT visitor_id) AS visitors,
           AVG(CAST(CASE WHEN joined THEN 1 ELSE 0 END AS DOUBLE PRECISION)) AS joined_share,
           AVG(CAST(dwell_ms AS DOUBLE PRECISION)) AS mean_dwell_ms,
           AVG(CAST(visible_ms AS DOUBLE PRECISION)) AS mean_visible_ms,
           AVG(CAST(scroll_pct AS DOUBLE PRECISION)) AS mean_scroll_pct
    FROM analytics.page_views
    WHERE article_id IS NOT NULL AND received_at >= GETDATE() - INTERVAL '7 days'
    GROUP BY article_id
)
SELECT r.article_id, r.article_title, r.author_id, r.section, r.page_views, r.visitors, r.joined_share, r.mean_dwell_ms,
       r.mean_visible_ms, r.mean_scroll_pct,
       CASE WHEN m.currencies > 1 THEN NULL ELSE COALESCE(m.revenue_micros, 0) END AS revenue_micros,
       RANK() OVER (ORDER BY r.page_views DESC) AS place,
       CASE WHEN m.currencies > 1 THEN NULL ELSE m.currency END AS currency
FROM reading r LEFT JOIN revenue m ON m.article_id = r.article_id;

-- Whose articles are read? The last 30 days, one row an author. revenue is of the ads on page views of the author's
-- articles, found by page view, so an article that changed hands counts for the author whom the page named. revenue_micros
-- and currency are like those of popular_articles.
CREATE OR REPLACE VIEW analytics.popular_authors AS
WITH firsts AS (
    SELECT page_view_id, author_id,
           ROW_NUMBER() OVER (PARTITION BY page_view_id ORDER BY received_at, event_id) AS place
    FROM analytics.page_views
    WHERE received_at >= GETDATE() - INTERVAL '30 days'
), ads AS (
    SELECT page_view_id, revenue_micros, currency FROM analytics.ad_impressions
    WHERE received_at >= GETDATE() - INTERVAL '30 days'
    UNION ALL
    SELECT page_view_id, revenue_micros, currency FROM analytics.ad_clicks
    WHERE received_at >= GETDATE() - INTERVAL '30 days'
), revenue AS (
    SELECT f.author_id, SUM(COALESCE(a.revenue_micros, 0)) AS revenue_micros,
           MAX(a.currency) AS currency, COUNT(DISTINCT COALESCE(a.currency, '')) AS currencies
    FROM firsts f JOIN ads a ON a.page_view_id = f.page_view_id
    WHERE f.place = 1 AND f.author_id IS NOT NULL
    GROUP BY f.author_id
), reading AS (
    SELECT author_id, COUNT(DISTINCT article_id) AS articles, COUNT(*) AS page_views,
           COUNT(DISTINCT visitor_id) AS visitors,
           AVG(CAST(CASE WHEN joined THEN 1 ELSE 0 END AS DOUBLE PRECISION)) AS joined_share,
           AVG(CAST(dwell_ms AS DOUBLE PRECISION)) AS mean_dwell_ms,
           AVG(CAST(visible_ms AS DOUBLE PRECISION)) AS mean_visible_ms,
           AVG(CAST(scroll_pct AS DOUBLE PRECISION)) AS mean_scroll_pct
    FROM analytics.page_views
    WHERE author_id IS NOT NULL AND received_at >= GETDATE() - INTERVAL '30 days'
    GROUP BY author_id
)
SELECT r.author_id, r.articles, r.page_views, r.visitors, r.joined_share, r.mean_dwell_ms, r.mean_visible_ms,
       r.mean_scroll_pct, CASE WHEN m.currencies > 1 THEN NULL ELSE COALESCE(m.revenue_micros, 0) END AS revenue_micros,
       RANK() OVER (ORDER BY r.page_views DESC) AS place,
       CASE WHEN m.currencies > 1 THEN NULL ELSE m.currency END AS currency
FROM reading r LEFT JOIN revenue m ON m.author_id = r.author_id;

-- What rises now? One row an article read in the last hour: its views of the last 15 minutes, of the last hour, and what an
-- hour of the 24 before brought on average. score is the last hour against that baseline, one added to both so that the new
-- and the quiet can be compared: 2 reads "twice as much as usual". Views arrive up to join window and grace late, so the
-- last minutes are always thin; compare articles with one another.
CREATE OR REPLACE VIEW analytics.trends AS
WITH counted AS (
    SELECT article_id, MAX(article_title) AS article_title, MAX(section) AS section,
           SUM(CASE WHEN received_at >= GETDATE() - INTERVAL '15 minutes' THEN 1 ELSE 0 END) AS views_15_minutes,
           SUM(CASE WHEN received_at >= GETDATE() - INTERVAL '1 hour' THEN 1 ELSE 0 END) AS views_hour,
           SUM(CASE WHEN received_at < GETDATE() - INTERVAL '1 hour' THEN 1 ELSE 0 END) AS views_before
    FROM analytics.page_views
    WHERE article_id IS NOT NULL AND received_at >= GETDATE() - INTERVAL '25 hours'
    GROUP BY article_id
)
SELECT article_id, article_title, section, views_15_minutes, views_hour,
       CAST(views_before AS DOUBLE PRECISION) / 24 AS baseline_per_hour,
       (views_hour + 1) / (CAST(views_before AS DOUBLE PRECISION) / 24 + 1) AS score
FROM counted
WHERE views_hour > 0;

-- How was a page view read, by everything that was heard of it? One row a page view. A page that reports again and again sends many
-- engagements: its row in page_views has the last one that came in time, the others are rows of engagements (extra, late). This view
-- takes all of them, in any order and however late. The figures of a report are cumulated, so the greatest counts. reports is their
-- number: a tag that sends a ping every ten seconds of activity was active for 10 * reports seconds. last_at is the time of the last
-- report on the visitor's clock, as occurred_at is the time of the page view.
CREATE OR REPLACE VIEW analytics.page_view_engagement AS
WITH firsts AS (
    SELECT page_view_id, event_id, visitor_id, article_id, occurred_at, received_at,
           ROW_NUMBER() OVER (PARTITION BY page_view_id ORDER BY received_at, event_id) AS place
    FROM analytics.page_views
), told AS (
    SELECT page_view_id, engaged_at AS told_at, dwell_ms, visible_ms, engaged_ms, scroll_pct
    FROM analytics.page_views WHERE joined
    UNION ALL
    SELECT page_view_id, occurred_at, dwell_ms, visible_ms, engaged_ms, scroll_pct FROM analytics.engagements
), summed AS (
    SELECT page_view_id, COUNT(*) AS reports, MAX(told_at) AS last_at, MAX(dwell_ms) AS dwell_ms,
           MAX(visible_ms) AS visible_ms, MAX(engaged_ms) AS engaged_ms, MAX(scroll_pct) AS scroll_pct
    FROM told GROUP BY page_view_id
)
SELECT f.page_view_id, f.event_id, f.visitor_id, f.article_id, f.occurred_at, f.received_at,
       COALESCE(s.reports, 0) AS reports, s.last_at, s.dwell_ms, s.visible_ms, s.engaged_ms, s.scroll_pct
FROM firsts f LEFT JOIN summed s ON s.page_view_id = f.page_view_id
WHERE f.place = 1;

-- What became of a line? One row for each line of a batch with its outcome: the flow that has its row, joined, duplicate or
-- erased. Ask for one batch, or a few: WHERE batch_id = '...' (AND line = ...). To count lines by outcome, add up column lines of table ledger.
-- A line is a character of the ledger's line_bits, and the numbers say which. Ledger rows that an older version wrote have no
-- line_bits: their lines are only in line_set, which SQL cannot read.
CREATE OR REPLACE VIEW analytics.line_fates AS
WITH digits AS (
    SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5
    UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9
), numbers AS (
    SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n
    FROM digits a CROSS JOIN digits b CROSS JOIN digits c CROSS JOIN digits e CROSS JOIN digits f
)
SELECT l.batch_id, l.first_line + n.n AS line, l.outcome, l.txn_id, l.loaded_at
FROM analytics.ledger l JOIN numbers n ON n.n <= l.last_line - l.first_line AND SUBSTRING(l.line_bits, n.n + 1, 1) = '1';

-- How many events were lost between browser and collector? One row for each day (UTC) on which tabs began, of the last 30 days.
-- The tracker numbers the events of a tab from 1 (tab and seq in properties), so the highest number that arrived says how many
-- were sent before it, and a number that is missing is an event that never arrived. Events that a tab sent last and lost are not
-- seen. A tab counts once it has been silent for an hour: reports of open pages have numbers before they are sent.
-- A tab that was duplicated shares its numbers with the first, so of its loss less is seen. What is no number of ours is left out.
CREATE OR REPLACE VIEW analytics.browser_loss AS
WITH numbered AS (
    SELECT properties, received_at FROM analytics.page_views WHERE properties LIKE '%"tab":"%'
    UNION ALL
    SELECT engagement_properties, received_at FROM analytics.page_views WHERE engagement_properties LIKE '%"tab":"%'
    UNION ALL
    SELECT properties, received_at FROM analytics.engagements WHERE properties LIKE '%"tab":"%'
    UNION ALL
    SELECT properties, received_at FROM analytics.ad_impressions WHERE properties LIKE '%"tab":"%'
    UNION ALL
    SELECT properties, received_at FROM analytics.ad_clicks WHERE properties LIKE '%"tab":"%'
    UNION ALL
    SELECT properties, received_at FROM analytics.redirects WHERE properties LIKE '%"tab":"%'
), told AS (
    SELECT JSON_EXTRACT_PATH_TEXT(properties, 'tab') AS tab, JSON_EXTRACT_PATH_TEXT(properties, 'seq') AS seq, received_at
    FROM numbered WHERE received_at >= GETDATE() - INTERVAL '31 days'
), counted AS (
    SELECT tab, CASE WHEN seq ~ '^[1-9][0-9]{0,4}$' THEN CAST(seq AS INTEGER) END AS number, received_at
    FROM told WHERE tab ~ '^[0-9]{13}-[0-9]{1,10}-[0-9]{1,10}-[0-9]{1,10}$'
), tabs AS (
    SELECT tab, DATE_TRUNC('day', MIN(received_at)) AS day, MAX(number) AS sent, COUNT(DISTINCT number) AS received
    FROM counted WHERE number IS NOT NULL
    GROUP BY tab
    HAVING MAX(received_at) < GETDATE() - INTERVAL '1 hour'
), known AS (
    -- A tab's name begins with its first moment in milliseconds: of an older tab not every event is looked at.
    SELECT day, sent, received FROM tabs
    WHERE SUBSTRING(tab, 1, 10) >= CAST(CAST(EXTRACT(EPOCH FROM GETDATE() - INTERVAL '30 days') AS BIGINT) AS VARCHAR(20))
)
SELECT day, COUNT(*) AS tabs, SUM(CASE WHEN sent > received THEN 1 ELSE 0 END) AS tabs_with_loss,
       SUM(sent) AS sent, SUM(received) AS received, SUM(sent - received) AS lost,
       CAST(SUM(sent - received) AS DOUBLE PRECISION) / SUM(sent) AS lost_share
FROM known
GROUP BY day;
