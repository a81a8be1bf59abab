//! One tick of the watchdog over the same database, wherever it runs: what it meets, and what it leaves.
use serde_json::Value;

/// Posts in states that a watchdog meets: nobody started it; its run is gone; its run is gone and it may be out already; it is for
/// tomorrow; it is out; it was tried as often as it may be.
pub const POSTS: &str = "
    DELETE FROM posts;
    DELETE FROM users;
    INSERT INTO users (email) VALUES ('parity@example.org');
    INSERT INTO posts (user_id, platform, content, status, scheduled_at, rescue_at, attempt, run_id, side_effect_at)
    SELECT u.id, 'nowhere', p.content, p.status, now() + p.due, now() + p.rescue, p.attempt, p.run,
           CASE WHEN p.begun THEN now() END
    FROM users u, (VALUES
        ('not started', 'publishing', interval '-1 hour', interval '-1 minute', 1, NULL,                        false),
        ('run is gone', 'publishing', interval '-1 hour', interval '-1 minute', 1, 'run_cmissing00000000000001', false),
        ('may be out',  'publishing', interval '-1 hour', interval '-1 minute', 1, 'run_cmissing00000000000002', true),
        ('tomorrow',    'scheduled',  interval '1 day',   interval '1 day',     0, NULL,                        false),
        ('out',         'published',  interval '-1 day',  NULL,                 1, 'run_cmissing00000000000003', true),
        ('worn out',    'publishing', interval '-1 hour', interval '-1 minute', 9, 'run_cmissing00000000000004', false)
    ) AS p (content, status, due, rescue, attempt, run, begun)";

/// Without ids and times, which differ from one place to the next.
pub const STATE: &str = "
    SELECT jsonb_build_object(
        'posts', (SELECT jsonb_object_agg(content, jsonb_build_object('status', status, 'attempt', attempt,
            'has a run', run_id IS NOT NULL, 'may be out', side_effect_at IS NOT NULL, 'due', rescue_at <= now(),
            'last error', last_error)) FROM posts),
        'attempts', (SELECT jsonb_agg(jsonb_build_array(p.content, a.attempt, a.run_id IS NOT NULL, a.outcome, a.ended_at IS NOT NULL)
            ORDER BY p.content, a.attempt) FROM psn.post_attempts a JOIN posts p ON p.id = a.post_id),
        'dead letters', (SELECT jsonb_agg(jsonb_build_array(p.content, d.state, d.attempt, d.cause, d.notified_at IS NOT NULL)
            ORDER BY p.content) FROM psn.dead_letters d JOIN posts p ON p.id = d.post_id),
        'tick is over', (SELECT bool_and(tick IS NULL) FROM psn.watchdog)
    )::text";

/// Without what a clock says, or what else goes on in the database.
pub fn same_everywhere(mut output: Value) -> Value {
    const CLOCKS: [&str; 4] = ["_s", "_ms", "_at", "_age"];
    if let Value::Object(fields) = &mut output {
        fields.retain(|name, _| !CLOCKS.iter().any(|end| name.ends_with(end)));
        for value in fields.values_mut() {
            *value = same_everywhere(value.take());
        }
    }
    output
}
