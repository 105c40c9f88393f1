-- spend_and_reservations: every sum a gate reads is what its reservations say, those pruned included
SELECT w.scope || ' ' || w.subject || ' ' || w.period || ' ' || w.unit,
       'says ' || COALESCE(s.settled, 0) || ' settled and ' || COALESCE(s.reserved, 0) || ' reserved; its reservations say '
       || w.settled || ' and ' || w.reserved
FROM (
  SELECT scope, subject, period, unit, SUM(settled) AS settled, SUM(reserved) AS reserved FROM (
    SELECT scope, subject, period, unit, COALESCE(settled, 0) AS settled,
           CASE WHEN settled IS NULL THEN reserved ELSE 0 END AS reserved
    FROM reservations WHERE scope <> 'firing'
    UNION ALL SELECT scope, subject, period, unit, settled, 0 FROM spend_carried
    UNION ALL SELECT scope, subject, period, unit, 0, 0 FROM spend)
  GROUP BY scope, subject, period, unit
) AS w LEFT JOIN spend AS s USING (scope, subject, period, unit)
WHERE COALESCE(s.settled, 0) <> w.settled OR COALESCE(s.reserved, 0) <> w.reserved

-- firings_that_started: as the event of their beginning says
SELECT f.id, 'is not as it began: ' || e.body
FROM events AS e JOIN firings AS f ON f.id = e.subject
WHERE e.seq > :anchored AND e.kind IN ('firing started', 'firing refused') AND (
  e.at IS NOT f.started OR json_extract(e.body, '$.agent') IS NOT f.agent OR json_extract(e.body, '$.host') IS NOT f.host
  OR (e.kind = 'firing refused' AND (json_extract(e.body, '$.outcome') IS NOT f.outcome OR json_extract(e.body, '$.reason') IS NOT f.reason)))

-- firings_that_ended: as the event of their end says
SELECT f.id, 'is not as it ended: ' || e.body
FROM events AS e JOIN firings AS f ON f.id = e.subject
WHERE e.seq > :anchored AND e.kind = 'firing ended' AND (
  e.at IS NOT f.ended OR json_extract(e.body, '$.agent') IS NOT f.agent OR json_extract(e.body, '$.outcome') IS NOT f.outcome
  OR json_extract(e.body, '$.reason') IS NOT f.reason OR json_extract(e.body, '$.cost_micro') IS NOT f.cost_micro)

-- firings_without_an_event: nothing says that they began, or that they ended as they say
SELECT f.id, 'no event tells of it'
FROM firings AS f WHERE f.started >= :before AND NOT EXISTS (
  SELECT 1 FROM events WHERE subject = f.id AND kind = CASE WHEN f.outcome IS NULL THEN 'firing started'
    WHEN f.ended = f.started OR f.cost_basis IS NULL THEN kind ELSE 'firing ended' END
  AND kind IN ('firing started', 'firing refused', 'firing ended'))

-- firings_gone: an event tells of one that is not there
SELECT e.subject, 'event ' || e.seq || ' tells of it, and it is gone'
FROM events AS e LEFT JOIN firings AS f ON f.id = e.subject
WHERE e.seq > :anchored AND e.kind IN ('firing started', 'firing refused') AND e.at >= :before AND f.id IS NULL

-- firings_that_go_on: they ended, by an event, and the row says that they have not
SELECT f.id, 'has not ended, and event ' || e.seq || ' says that it has'
FROM firings AS f JOIN events AS e ON e.subject = f.id AND e.seq > :anchored AND e.kind = 'firing ended' WHERE f.outcome IS NULL

-- holds_that_began: as the event of their beginning says
SELECT json_extract(e.body, '$.id'), 'is not as it was put: ' || e.subject || ' ' || e.body
FROM events AS e LEFT JOIN holds AS h ON h.id = json_extract(e.body, '$.id')
WHERE e.seq > :anchored AND e.kind = 'hold' AND e.at >= :before AND (
  h.id IS NULL OR e.subject IS NOT h.scope || ':' || h.subject OR e.at IS NOT h.since OR json_extract(e.body, '$.kind') IS NOT h.kind
  OR json_extract(e.body, '$.author') IS NOT h.author OR (h.heals = 0 AND json_extract(e.body, '$.reason') IS NOT h.reason)
  OR h.until IS NOT COALESCE((
    SELECT json_extract(l.body, '$.until') FROM events AS l
    WHERE l.seq > :anchored AND l.subject = e.subject AND l.kind = 'hold lengthened' AND json_extract(l.body, '$.id') = h.id ORDER BY l.seq DESC LIMIT 1
  ), json_extract(e.body, '$.until')))

-- holds_that_were_lifted: they are lifted, as the event says, and no others are
SELECT h.id, 'is lifted by ' || COALESCE(h.lifted_by, '?') || ' at ' || h.lifted_at || ', and no event says so'
FROM holds AS h WHERE h.lifted_at >= :before AND NOT EXISTS (
  SELECT 1 FROM events AS e WHERE e.subject = h.scope || ':' || h.subject AND e.seq > :anchored AND e.kind = 'hold lifted'
    AND json_extract(e.body, '$.id') = h.id AND e.at IS h.lifted_at AND json_extract(e.body, '$.by') IS h.lifted_by)
UNION ALL
SELECT h.id, 'stands, and event ' || e.seq || ' says that it was lifted'
FROM events AS e JOIN holds AS h ON h.id = json_extract(e.body, '$.id') WHERE e.seq > :anchored AND e.kind = 'hold lifted' AND h.lifted_at IS NULL

-- holds_without_an_event: nothing says that they were put
SELECT h.id, 'no event tells of it'
FROM holds AS h WHERE h.since >= :before AND NOT EXISTS (
  SELECT 1 FROM events AS e WHERE e.subject = h.scope || ':' || h.subject AND e.seq > :anchored AND e.kind = 'hold' AND json_extract(e.body, '$.id') = h.id)

-- grants_that_were_settled: as the event says
SELECT g.firing || ' ' || g.try, 'is not as it was settled: ' || e.body
FROM events AS e JOIN grants AS g ON g.firing = e.subject AND g.try = json_extract(e.body, '$.try')
WHERE e.seq > :anchored AND e.kind = 'settled' AND json_extract(e.body, '$.usd') IS NOT NULL AND (
  e.at IS NOT g.settled_at OR json_extract(e.body, '$.usd') IS NOT g.usd OR json_extract(e.body, '$.tokens') IS NOT g.tokens
  OR json_extract(e.body, '$.turns') IS NOT g.turns OR json_extract(e.body, '$.firings') IS NOT g.firings OR json_extract(e.body, '$.basis') IS NOT g.basis)

-- grants_gone: an event tells of one that is not there
SELECT e.subject || ' ' || (json_extract(e.body, '$.try')), 'event ' || e.seq || ' tells of it, and it is gone'
FROM events AS e LEFT JOIN grants AS g ON g.firing = e.subject AND g.try = json_extract(e.body, '$.try')
WHERE e.seq > :anchored AND e.kind = 'reserved' AND json_extract(e.body, '$.caps') IS NOT NULL AND e.at >= :before AND (g.firing IS NULL OR g.at IS NOT e.at)

-- reservations_of_grants: cap by cap as the event says, and settled as their grant is
SELECT r.firing || ' ' || r.try || ' ' || r.unit || ' ' || r.scope, 'is not what its grant says'
FROM reservations AS r LEFT JOIN grants AS g USING (firing, try)
WHERE g.firing IS NULL OR (g.settled_at IS NULL AND r.settled IS NOT NULL) OR r.basis IS NOT g.basis AND g.at >= :before
   OR (g.settled_at IS NOT NULL AND g.at >= :before AND r.settled IS NOT CASE r.unit
       WHEN 'usd' THEN g.usd WHEN 'tokens' THEN g.tokens WHEN 'turns' THEN g.turns WHEN 'firings' THEN g.firings END)

-- reservations_that_were_made: cap by cap as the event says
SELECT e.subject || ' ' || (json_extract(e.body, '$.try')) || ' ' || (json_extract(c.value, '$[3]')) || ' ' || (json_extract(c.value, '$[0]')),
       'is not as it was reserved: ' || c.value
FROM events AS e JOIN json_each(e.body, '$.caps') AS c
LEFT JOIN reservations AS r ON r.firing = e.subject AND r.try = json_extract(e.body, '$.try') AND r.scope = json_extract(c.value, '$[0]')
                           AND r.unit = json_extract(c.value, '$[3]')
WHERE e.seq > :anchored AND e.kind = 'reserved' AND e.at >= :before AND (
  r.firing IS NULL OR r.subject IS NOT json_extract(c.value, '$[1]') OR r.period IS NOT json_extract(c.value, '$[2]') OR r.cap IS NOT json_extract(c.value, '$[4]')
  OR r.reserved IS NOT json_extract(c.value, '$[5]'))

-- claims_as_they_moved: as the last event on them says
SELECT c.repo || '#' || c.number || ' generation ' || c.generation, 'is not where it was moved to: ' || e.kind || ' ' || e.body
FROM claims AS c JOIN events AS e ON e.seq = (
  SELECT MAX(l.seq) FROM events AS l WHERE l.seq > :anchored AND l.subject = c.repo || '#' || c.number AND l.kind LIKE 'claim %'
    AND json_extract(l.body, '$.firing') = c.firing AND json_extract(l.body, '$.generation') = c.generation)
WHERE (SELECT COUNT(*) FROM claims AS o
       WHERE o.repo_id = c.repo_id AND o.number = c.number AND o.firing = c.firing AND o.generation = c.generation) = 1
  AND (e.kind IS NOT 'claim ' || c.state
       OR (json_extract(e.body, '$.record') IS NOT NULL AND (json_extract(e.body, '$.record') IS NOT c.record OR json_extract(e.body, '$.tip') IS NOT c.tip)))

-- effects_as_they_were: what was meant, and what came of it
SELECT f.key, 'is not as it was: ' || e.body
FROM events AS e JOIN effects AS f ON f.key = e.subject
WHERE (e.seq > :anchored AND e.kind = 'effect intended' AND (e.at IS NOT f.intended_at OR json_extract(e.body, '$.firing') IS NOT f.firing
                                       OR json_extract(e.body, '$.intent') IS NOT f.intent))
   OR (e.seq > :anchored AND e.kind = 'effect received' AND (e.at IS NOT f.received_at OR json_extract(e.body, '$.receipt') IS NOT f.receipt))

-- evidence_as_it_was: nothing says that these bytes were put on record
SELECT v.firing || ' ' || v.kind, 'no event tells of ' || v.digest
FROM evidence AS v WHERE v.at >= :before AND NOT EXISTS (
  SELECT 1 FROM events AS e WHERE e.subject = v.firing AND e.seq > :anchored AND e.kind = 'evidence' AND e.at = v.at
    AND json_extract(e.body, '$.kind') = v.kind AND json_extract(e.body, '$.digest') = v.digest AND json_extract(e.body, '$.size') = v.size)

-- spend_of_itself: what a row says twice it says alike
SELECT scope || ' ' || subject || ' ' || period || ' ' || unit, 'contradicts itself'
FROM spend WHERE echo <> settled + 3 * reserved
