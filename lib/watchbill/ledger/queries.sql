-- firing_begin: a firing starts; refused by the database while another of this agent lives on this host
INSERT INTO firings (id, agent, role, host, boot, pid, pid_started, due, started, config)
VALUES (:id, :agent, :role, :host, :boot, :pid, :pid_started, :due, :started, :config)

-- firing_refuse: a firing that ended at a gate, in one row
INSERT INTO firings (id, agent, role, host, boot, pid, pid_started, due, started, config,
                     ended, outcome, exit, reason, reason_id)
VALUES (:id, :agent, :role, :host, :boot, :pid, :pid_started, :due, :started, :config,
        :ended, :outcome, :exit, :reason, :reason_id)

-- firing_target: what the firing is about
UPDATE firings SET repo_id = :repo_id, repo = :repo, number = :number, branch = :branch, generation = :generation
WHERE id = :id

-- firing_pull: the pull request it opened or adopted
UPDATE firings SET pull_request = :pull_request WHERE id = :id

-- firing_end: compare-and-set, so that a firing ends once
UPDATE firings SET ended = :ended, outcome = :outcome, exit = :exit, reason = :reason, reason_id = :reason_id,
                   cost_micro = :cost_micro, cost_basis = :cost_basis, tokens = :tokens, turns = :turns
WHERE id = :id AND outcome IS NULL

-- firing_get: one firing
SELECT id, agent, role, host, boot, pid, pid_started, due, started, ended, outcome, exit, reason, reason_id, config,
       repo_id, repo, number, pull_request, branch, generation, cost_micro, cost_basis,
       engine, account, model, tokens, turns
FROM firings WHERE id = :id

-- firings_like: firings whose id starts so
SELECT id FROM firings WHERE id >= :prefix AND id < :beyond ORDER BY id LIMIT 3

-- firings_newest: when it began; ids grow with time
SELECT started FROM firings ORDER BY id DESC LIMIT 1

-- firings_live: of this host, not ended by the ledger's account
SELECT id, agent, role, host, boot, pid, pid_started, due, started, ended, outcome, exit, reason, reason_id, config,
       repo_id, repo, number, pull_request, branch, generation, cost_micro, cost_basis,
       engine, account, model, tokens, turns
FROM firings WHERE host = :host AND ended IS NULL ORDER BY started

-- firings_live_elsewhere: of another host id, not ended by the ledger's account
SELECT id, agent, role, host, boot, pid, pid_started, due, started, ended, outcome, exit, reason, reason_id, config,
       repo_id, repo, number, pull_request, branch, generation, cost_micro, cost_basis,
       engine, account, model, tokens, turns
FROM firings WHERE ended IS NULL AND host <> :host

-- firings_of_agent: newest first
SELECT id, agent, role, host, boot, pid, pid_started, due, started, ended, outcome, exit, reason, reason_id, config,
       repo_id, repo, number, pull_request, branch, generation, cost_micro, cost_basis,
       engine, account, model, tokens, turns
FROM firings WHERE agent = :agent ORDER BY id DESC LIMIT :count

-- firings_of_issue: oldest first
SELECT id, agent, role, host, boot, pid, pid_started, due, started, ended, outcome, exit, reason, reason_id, config,
       repo_id, repo, number, pull_request, branch, generation, cost_micro, cost_basis,
       engine, account, model, tokens, turns
FROM firings WHERE repo = :repo AND number = :number ORDER BY started, id

-- step_begin: a step starts
INSERT INTO steps (firing, ordinal, name, started_ms) VALUES (:firing, :ordinal, :name, :started_ms)

-- step_end: and ends
UPDATE steps SET duration_ms = :duration_ms, verdict = :verdict, detail = :detail
WHERE firing = :firing AND ordinal = :ordinal

-- steps_of_firing: its timeline
SELECT ordinal, name, started_ms, duration_ms, verdict, detail FROM steps WHERE firing = :firing ORDER BY ordinal

-- decision_add: one verdict with its numbers
INSERT INTO decisions (firing, at, step, subject, verdict, reason_id, reason, numbers)
VALUES (:firing, :at, :step, :subject, :verdict, :reason_id, :reason, :numbers)

-- decisions_of_firing: in order
SELECT firing, at, step, subject, verdict, reason_id, reason, numbers FROM decisions
WHERE firing = :firing ORDER BY id

-- decisions_on_subject: newest first
SELECT firing, at, step, subject, verdict, reason_id, reason, numbers FROM decisions
WHERE subject = :subject AND at <= :until ORDER BY at DESC, id DESC LIMIT :count

-- claim_intend: the commit we mean to push, before it is pushed
INSERT INTO claims (repo_id, repo, number, generation, firing, host, intended, state)
VALUES (:repo_id, :repo, :number, :generation, :firing, :host, :intended, 'intended')

-- claim_win: the swap went through
UPDATE claims SET state = 'won', tip = :tip, won_at = :at
WHERE firing = :firing AND repo_id = :repo_id AND number = :number AND state = 'intended'

-- claim_lose: it did not
UPDATE claims SET state = 'lost', ended_at = :at
WHERE firing = :firing AND repo_id = :repo_id AND number = :number AND state = 'intended'

-- claim_intend_next: the next commit of a claim we own, before it is pushed
UPDATE claims SET intended = :intended WHERE firing = :firing AND state = 'won'

-- claim_advance: our own tip moved on
UPDATE claims SET tip = :tip, record = :record WHERE firing = :firing AND state = 'won'

-- claim_end: nobody's any more, by our own hand (ended) or another's (superseded)
UPDATE claims SET state = :state, record = :record, tip = :tip, ended_at = :at
WHERE firing = :firing AND state IN ('intended', 'won')

-- claim_live_on: who of this host owns an issue
SELECT id, repo_id, repo, number, generation, firing, host, intended, tip, record, state, won_at, ended_at
FROM claims WHERE repo_id = :repo_id AND number = :number AND state IN ('intended', 'won')

-- claim_of_firing: the one it still owns or owned last
SELECT id, repo_id, repo, number, generation, firing, host, intended, tip, record, state, won_at, ended_at
FROM claims WHERE firing = :firing ORDER BY id DESC LIMIT 1

-- claim_last_won: the newest generation this host saw won
SELECT id, repo_id, repo, number, generation, firing, host, intended, tip, record, state, won_at, ended_at
FROM claims WHERE repo_id = :repo_id AND number = :number AND won_at IS NOT NULL ORDER BY generation DESC LIMIT 1

-- claims_live: of this host
SELECT id, repo_id, repo, number, generation, firing, host, intended, tip, record, state, won_at, ended_at
FROM claims WHERE host = :host AND state IN ('intended', 'won') ORDER BY id

-- claims_live_elsewhere: of another host id
SELECT id, repo_id, repo, number, generation, firing, host, intended, tip, record, state, won_at, ended_at
FROM claims WHERE state IN ('intended', 'won') AND host <> :host

-- sighting_get: since when a tip has stood unchanged
SELECT tip, first_seen_ms, boot FROM sightings WHERE repo_id = :repo_id AND number = :number

-- sightings_of_repo: all of them, in one read
SELECT number, tip, boot, first_seen_ms FROM sightings WHERE repo_id = :repo_id

-- sighting_put: a tip seen for the first time, or after a reboot
INSERT INTO sightings (repo_id, number, tip, first_seen_ms, boot)
VALUES (:repo_id, :number, :tip, :first_seen_ms, :boot)
ON CONFLICT (repo_id, number) DO UPDATE SET tip = excluded.tip, first_seen_ms = excluded.first_seen_ms,
                                            boot = excluded.boot

-- effect_intend: what we are about to do outside
INSERT INTO effects (key, firing, kind, intent, intended_at) VALUES (:key, :firing, :kind, :intent, :at)

-- effect_receive: what came of it
UPDATE effects SET receipt = :receipt, received_at = :at WHERE key = :key AND receipt IS NULL

-- effect_get: by its idempotency key
SELECT key, firing, kind, intent, receipt FROM effects WHERE key = :key

-- effects_of_firing: in order
SELECT key, firing, kind, intent, receipt FROM effects WHERE firing = :firing ORDER BY id

-- grant_next: which try of a firing its next grant is
SELECT COALESCE(MAX(try), 0) + 1 FROM grants WHERE firing = :firing

-- reserve: one unit against every cap; refused by the database above one
INSERT INTO reservations (firing, try, unit, scope, subject, period, cap, reserved) VALUES
  (:firing, :try, :unit, 'firing', :firing, '', :firing_cap, :reserved),
  (:firing, :try, :unit, 'issue', :issue, '', :issue_cap, :reserved),
  (:firing, :try, :unit, 'day', :agent, :day, :day_cap, :reserved),
  (:firing, :try, :unit, 'fleet_day', 'fleet', :day, :fleet_day_cap, :reserved),
  (:firing, :try, :unit, 'fleet_month', 'fleet', :month, :fleet_month_cap, :reserved)

-- grant: after its reservations; one while it is open
INSERT INTO grants (firing, try, at) VALUES (:firing, :try, :at)

-- settle: always accepted, once
UPDATE grants SET settled_at = :at, basis = :basis, usd = :usd, tokens = :tokens, turns = :turns, firings = :firings
WHERE firing = :firing AND settled_at IS NULL

-- reservations_open: what a firing still holds
SELECT firing, scope, subject, period, unit, cap, reserved, settled, basis FROM reservations
WHERE firing = :firing AND settled IS NULL ORDER BY try, unit, scope

-- reservations_of_firing: all it ever held
SELECT firing, scope, subject, period, unit, cap, reserved, settled, basis FROM reservations
WHERE firing = :firing ORDER BY try, unit, scope

-- spend_of: what is settled and reserved against one cap
SELECT settled, reserved, echo FROM spend
WHERE scope = :scope AND subject = :subject AND period = :period AND unit = :unit

-- hold_add: a reason not to fire
INSERT INTO holds (scope, subject, kind, reason, author, since, until, evidence)
VALUES (:scope, :subject, :kind, :reason, :author, :since, :until, :evidence)

-- holds_standing: those without an end, those before theirs, those that are to heal, those that healed just now
SELECT id, scope, subject, kind, reason, author, since, until, evidence, heals, strikes, canary, canary_until, lifted_at,
       eases_until FROM holds WHERE lifted_at IS NULL AND until IS NULL
UNION ALL
SELECT id, scope, subject, kind, reason, author, since, until, evidence, heals, strikes, canary, canary_until, lifted_at,
       eases_until FROM holds WHERE lifted_at IS NULL AND until > :now
UNION ALL
SELECT id, scope, subject, kind, reason, author, since, until, evidence, heals, strikes, canary, canary_until, lifted_at,
       eases_until FROM holds WHERE lifted_at IS NULL AND heals = 1 AND until <= :now
UNION ALL
SELECT id, scope, subject, kind, reason, author, since, until, evidence, heals, strikes, canary, canary_until, lifted_at,
       eases_until FROM holds WHERE eases_until IS NOT NULL AND eases_until > :now

-- hold_put: one that heals; where it stands already the later end wins, and nobody is its canary any more
INSERT INTO holds (scope, subject, kind, reason, author, since, until, evidence, heals, strikes)
VALUES (:scope, :subject, :kind, :reason, :author, :since, :until, :evidence, 1, :strikes)
ON CONFLICT (scope, subject, kind) WHERE lifted_at IS NULL AND heals = 1 DO UPDATE SET
  until = CASE WHEN excluded.until > holds.until THEN excluded.until ELSE holds.until END,
  strikes = excluded.strikes, reason = excluded.reason, evidence = excluded.evidence,
  canary = NULL, canary_until = NULL

-- hold_healing: the one of this kind that has not healed yet
SELECT id, scope, subject, kind, reason, author, since, until, evidence, heals, strikes, canary, canary_until, lifted_at,
       eases_until FROM holds
WHERE scope = :scope AND subject = :subject AND kind = :kind AND lifted_at IS NULL AND heals = 1

-- hold_healed_lately: its strikes, while agents are still being let in
SELECT strikes FROM holds
WHERE eases_until IS NOT NULL AND eases_until > :now AND scope = :scope AND subject = :subject AND kind = :kind

-- hold_canary: one firing goes first; dead or idle, another takes its place
UPDATE holds SET canary = :firing, canary_until = :until
WHERE id = :id AND lifted_at IS NULL AND heals = 1 AND until <= :now
  AND (canary IS NULL OR canary = :firing OR canary_until <= :now)

-- hold_canary_back: it had nothing to try
UPDATE holds SET canary = NULL, canary_until = NULL WHERE canary = :firing AND lifted_at IS NULL

-- hold_heal: the canary came back alive
UPDATE holds SET lifted_at = :at, lifted_by = :firing, eases_until = :eases_until
WHERE id = :id AND canary = :firing AND lifted_at IS NULL AND heals = 1

-- hold_lift: compare-and-set
UPDATE holds SET lifted_at = :at, lifted_by = :by WHERE id = :id AND lifted_at IS NULL

-- evidence_add: bytes lie in blobs/ by digest
INSERT INTO evidence (firing, kind, digest, size, summary, at)
VALUES (:firing, :kind, :digest, :size, :summary, :at)

-- evidence_of_firing: in order
SELECT firing, kind, digest, size, summary, at FROM evidence WHERE firing = :firing ORDER BY id

-- attempt_get: how often this was tried
SELECT count, next_at FROM attempts WHERE role = :role AND target = :target AND digest = :digest

-- attempt_put: so many, and not before then again
INSERT INTO attempts (role, target, digest, count, next_at) VALUES (:role, :target, :digest, :count, :next_at)
ON CONFLICT (role, target, digest) DO UPDATE SET count = excluded.count, next_at = excluded.next_at

-- attempts_clear: a person has it now; a new label begins anew
DELETE FROM attempts WHERE role = :role AND target = :target

-- base_check_get: was this command green on this commit
SELECT exit, digest FROM base_checks WHERE base = :base AND command = :command AND (exit = 0 OR at > :red_since)

-- base_check_put: remember it
INSERT INTO base_checks (base, command, exit, digest, at) VALUES (:base, :command, :exit, :digest, :at)
ON CONFLICT (base, command) DO UPDATE SET exit = excluded.exit, digest = excluded.digest, at = excluded.at

-- poll_get: what the host last learnt
SELECT query, validator, fetched_ms, body, refreshing_by, refreshing_until FROM polls WHERE query = :query

-- poll_take: become the one who refreshes
INSERT INTO polls (query, refreshing_by, refreshing_until) VALUES (:query, :by, :until)
ON CONFLICT (query) DO UPDATE SET refreshing_by = excluded.refreshing_by, refreshing_until = excluded.refreshing_until
WHERE refreshing_by IS NULL OR refreshing_until <= :now

-- poll_put: what was learnt, and the right to refresh given back
UPDATE polls SET validator = :validator, fetched_ms = :fetched_ms, body = :body,
                 refreshing_by = NULL, refreshing_until = NULL
WHERE query = :query AND refreshing_by = :by

-- poll_give_back: the refresh failed
UPDATE polls SET refreshing_by = NULL, refreshing_until = NULL WHERE query = :query AND refreshing_by = :by

-- poll_give_back_all: everything this firing was asking
UPDATE polls SET refreshing_by = NULL, refreshing_until = NULL WHERE refreshing_by = :by

-- pace_take: one more push, on record; its theoretical arrival time, never further ahead than the longest wait allows
INSERT INTO paces (repo, tat_ms) VALUES (:repo, :now_ms + :interval_ms)
ON CONFLICT (repo) DO UPDATE SET tat_ms = CASE
  WHEN paces.tat_ms <= :now_ms THEN :now_ms + :interval_ms
  WHEN paces.tat_ms + :interval_ms >= :latest_ms THEN :latest_ms
  ELSE paces.tat_ms + :interval_ms END
RETURNING tat_ms

-- effects_on_issue: all that was done outside for one issue, by whomever; in no order
SELECT id, key, firing, kind, intent, receipt, intended_at, received_at FROM effects
WHERE key >= :prefix AND key < :beyond

-- claims_ever_won: the issues of a repository that this host has had
SELECT DISTINCT number FROM claims WHERE repo_id = :repo_id AND won_at IS NOT NULL

-- window_put: how full it is
INSERT INTO windows (account, name, used_ppm, resets_at, seen_at)
VALUES (:account, :name, :used_ppm, :resets_at, :seen_at)
ON CONFLICT (account, name) DO UPDATE SET used_ppm = excluded.used_ppm, resets_at = excluded.resets_at,
                                          seen_at = excluded.seen_at

-- windows_of_account: not reset since
SELECT account, name, used_ppm, resets_at, seen_at FROM windows WHERE account = :account AND resets_at > :now

-- meter_put: what a run used so far; the total only grows
INSERT INTO meters (firing, cost_micro, tokens, turns, basis, at, final)
VALUES (:firing, :cost_micro, :tokens, :turns, :basis, :at, :final)
ON CONFLICT (firing) DO UPDATE SET cost_micro = excluded.cost_micro, tokens = excluded.tokens, turns = excluded.turns,
                                   basis = excluded.basis, at = excluded.at, final = excluded.final

-- meter_get: of one firing
SELECT firing, cost_micro, tokens, turns, basis, at, final FROM meters WHERE firing = :firing

-- program_put: what it said of its version
INSERT INTO programs (path, file, version, asked_at) VALUES (:path, :file, :version, :asked_at)
ON CONFLICT (path) DO UPDATE SET file = excluded.file, version = excluded.version, asked_at = excluded.asked_at

-- program_get: what it said
SELECT path, file, version, asked_at FROM programs WHERE path = :path

-- session_of_generation: the conversation that the winner of a generation left, the newest first
SELECT evidence.firing, evidence.digest, evidence.summary, evidence.at
FROM claims JOIN evidence ON evidence.firing = claims.firing
WHERE claims.repo_id = :repo_id AND claims.number = :number AND claims.generation = :generation
  AND claims.won_at IS NOT NULL AND claims.host = :host AND evidence.kind = 'session'
ORDER BY evidence.id DESC LIMIT 1

-- streak_failed: one more in a row
INSERT INTO streaks (scope, subject, failures) VALUES (:scope, :subject, 1)
ON CONFLICT (scope, subject) DO UPDATE SET failures = streaks.failures + 1
RETURNING failures

-- streak_over: it went well
DELETE FROM streaks WHERE scope = :scope AND subject = :subject

-- firing_engine: what it runs on; from here on it may spend
UPDATE firings SET engine = :engine, account = :account, model = :model WHERE id = :id

-- seal_get: the digest of the holds that stood when the last was written
SELECT since, digest FROM seals WHERE name = 'holds'

-- seal_put: as they stand now
INSERT INTO seals (name, since, digest) VALUES ('holds', :since, :digest)
ON CONFLICT (name) DO UPDATE SET since = excluded.since, digest = excluded.digest

-- hold_newest: since when the newest hold stands
SELECT since FROM holds WHERE id = (SELECT MAX(id) FROM holds)

-- firings_that_spent: whose engine started, since then; oldest first
SELECT id, agent, role, started, ended, repo_id, repo, number, pull_request, cost_micro, cost_basis, engine, account,
       model, tokens, turns
FROM firings WHERE engine IS NOT NULL AND started >= :since ORDER BY started

-- firings_running: not ended by the ledger's account, with what each had used when last heard
SELECT firings.id, firings.agent, firings.host, firings.pid, firings.started, firings.repo_id, firings.repo,
       firings.number, firings.engine, firings.account, firings.model, meters.cost_micro, meters.tokens, meters.turns,
       meters.basis, meters.at
FROM firings LEFT JOIN meters ON meters.firing = firings.id WHERE firings.ended IS NULL

-- anchor_newest: up to where events are gone, and since when none is
SELECT seq, before FROM anchors ORDER BY seq DESC LIMIT 1

-- anchor_put: one row stands for all events up to it
INSERT INTO anchors (seq, hash, at, before, count, who) VALUES (:seq, :hash, :at, :before, :count, :who)

-- event_first_since: the first event that is not old
SELECT seq FROM events WHERE seq > :after AND at >= :before ORDER BY seq LIMIT 1

-- event_before: the event before another
SELECT seq, hash FROM events WHERE seq < :seq ORDER BY seq DESC LIMIT 1

-- event_last: the newest event
SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1

-- prune_events: some of those that an anchor stands for
DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq <= :seq ORDER BY seq LIMIT :most)

-- prune_candidates: firings that ended long ago and hold nothing
SELECT id FROM firings
WHERE id > :after AND ended < :before AND started < :before -- a clock may have been set back in between
  AND NOT EXISTS (SELECT 1 FROM grants WHERE grants.firing = firings.id AND settled_at IS NULL)
  AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.firing = firings.id AND state IN ('intended', 'won'))
ORDER BY id LIMIT :most

-- prune_would: whether a firing's own row would go, too: none of its claims is its issue's newest
SELECT 1 FROM firings WHERE id = :firing AND NOT EXISTS (
  SELECT 1 FROM claims WHERE claims.firing = firings.id AND won_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM claims AS later WHERE later.repo_id = claims.repo_id AND later.number = claims.number
      AND later.won_at IS NOT NULL AND later.generation > claims.generation))

-- prune_steps: of a firing
DELETE FROM steps WHERE firing = :firing

-- prune_decisions: of a firing
DELETE FROM decisions WHERE firing = :firing

-- prune_evidence: of a firing
DELETE FROM evidence WHERE firing = :firing

-- prune_reservations: of a firing; what they had settled is carried
DELETE FROM reservations WHERE firing = :firing

-- prune_grants: of a firing
DELETE FROM grants WHERE firing = :firing

-- prune_meters: of a firing
DELETE FROM meters WHERE firing = :firing

-- prune_effect: one that nothing will look up again
DELETE FROM effects WHERE key = :key

-- prune_claims: of a firing, but for its issue's newest that was won
DELETE FROM claims WHERE firing = :firing AND (won_at IS NULL OR EXISTS (
  SELECT 1 FROM claims AS later WHERE later.repo_id = claims.repo_id AND later.number = claims.number
    AND later.won_at IS NOT NULL AND later.generation > claims.generation))

-- prune_firing: its own row, unless a claim is left that names it
DELETE FROM firings WHERE id = :firing AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.firing = firings.id)

-- hold_prune: those that were over long ago
DELETE FROM holds
WHERE since < :before AND (lifted_at < :before OR (lifted_at IS NULL AND heals = 0 AND until < :before))

-- prune_count_holds: how many that is
SELECT COUNT(*) FROM holds
WHERE since < :before AND (lifted_at < :before OR (lifted_at IS NULL AND heals = 0 AND until < :before))

-- prune_base_checks: what was found out long ago
DELETE FROM base_checks WHERE at < :before

-- prune_count_base_checks: how many that is
SELECT COUNT(*) FROM base_checks WHERE at < :before

-- evidence_with: does anything name these bytes
SELECT 1 FROM evidence WHERE digest = :digest LIMIT 1

-- base_check_with: does a cached check name these bytes
SELECT 1 FROM base_checks WHERE digest = :digest LIMIT 1

-- overdue_open: episodes that are not over
SELECT agent, slot, noticed_at, firing, why FROM overdue WHERE host = :host AND over_at IS NULL

-- overdue_begin: nothing is changed when another firing noticed it
INSERT INTO overdue (agent, host, slot, noticed_at, firing, why)
VALUES (:agent, :host, :slot, :noticed_at, :firing, :why) ON CONFLICT DO NOTHING

-- overdue_end: it fired again
UPDATE overdue SET over_at = :at WHERE host = :host AND agent = :agent AND over_at IS NULL

-- overdue_last: an agent's newest firing
SELECT started, ended, due FROM firings
WHERE agent = :agent AND host = :host AND started <= :now ORDER BY id DESC LIMIT 1

-- overdue_freed: when a hold was last lifted that kept an agent from being started at all
SELECT max(lifted_at) FROM holds
WHERE kind IN ('pause', 'stop') AND lifted_at IS NOT NULL
  AND (scope = 'fleet' OR (scope = 'host' AND subject = :host) OR (scope = 'agent' AND subject = :agent))

-- overdue_before: anybody's newest firing before that id
SELECT started FROM firings WHERE id < :id AND host = :host ORDER BY id DESC LIMIT 1
