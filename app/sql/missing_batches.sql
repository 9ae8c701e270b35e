-- Every batch that was promised and is not covered: the registry's export against the ledger's files in S3.
--   missing      lines of the batch are in no ledger
--   excess       the ledger has more lines than the batch
--   uncompleted  all lines are there, and the audit has not completed the batch yet
-- A batch's ledger is never older than the batch, so the first day bounds both sides.
WITH promised AS (
  SELECT
    item.batch_id.s AS batch_id,
    item.state.s AS state,
    CAST(item.line_count.n AS bigint) AS line_count,
    CAST(item.attempts.n AS bigint) AS attempts,
    CAST(item.received_at.n AS bigint) AS received_at_ms
  FROM {database}.registry_exports
  WHERE export = '{export}' AND item.epoch.n = '{epoch}'
),
covered AS (
  SELECT batch_id, sum(lines) AS lines
  FROM {database}.ledger
  WHERE dt >= '{first_day}'
  GROUP BY batch_id
)
SELECT
  promised.batch_id AS batch_id,
  CASE
    WHEN coalesce(covered.lines, 0) < promised.line_count THEN 'missing'
    WHEN covered.lines > promised.line_count THEN 'excess'
    ELSE 'uncompleted'
  END AS finding,
  promised.state AS state,
  promised.line_count AS line_count,
  coalesce(covered.lines, 0) AS covered_lines,
  promised.attempts AS attempts,
  promised.received_at_ms AS received_at_ms
FROM promised
LEFT JOIN covered ON covered.batch_id = promised.batch_id
WHERE promised.received_at_ms >= {since_ms}
  AND promised.received_at_ms < {until_ms}
  AND (promised.state <> 'complete' OR coalesce(covered.lines, 0) <> promised.line_count)
ORDER BY received_at_ms, batch_id
