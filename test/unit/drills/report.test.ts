import t from 'tap';
import type { DrillReport } from '../../../bin/drills/drill.js';
import { formatMarkdown } from '../../../bin/drills/report.js';
import { runRounds, spreads } from '../../../bin/drills/soak.js';
import { timelineOf, type LoggedEvent } from '../../../bin/drills/timeline.js';

const report = (drill: string, findings: DrillReport['findings'], passed = true): DrillReport => ({
  drill,
  passed,
  exactlyOnce: passed,
  committedLines: passed ? 10 : 0,
  findings,
  ...(!passed && { failure: 'TIMEOUT: a | b' }),
  durationMs: 1000,
  timeline: [{ ms: 7, process: 'jobmanager-1', event: 'leader.active', text: 'leads' }],
});

await t.test('rounds end when there were enough of them, or when the time is over', async (t) => {
  const numbers: number[] = [];
  const one = (number: number): Promise<DrillReport[]> => {
    numbers.push(number);
    return Promise.resolve([report('a', {})]);
  };
  t.equal((await runRounds({ rounds: 3 }, one)).length, 3);
  t.strictSame(numbers, [1, 2, 3]);
  t.equal((await runRounds({ durationMs: 0 }, one)).length, 1);
  t.equal((await runRounds({}, one)).length, 1);
});

await t.test('findings are spread by drill, numbers only', (t) => {
  const values = Array.from({ length: 100 }, (_, i) => report('a', { ms: 100 - i, who: 'x' }));
  const [a, b] = spreads([...values, report('b', {}, false)]);
  t.strictSame(a?.findings[0], { finding: 'ms', rounds: 100, p50: 50, p99: 99, worst: 100 });
  t.strictSame(
    a?.findings.map(({ finding }) => finding),
    ['ms', 'durationMs'],
  );
  t.match(b, { drill: 'b', rounds: 1, failed: 1 });
  t.end();
});

await t.test('the report names verdicts, findings and what happened when', (t) => {
  const known = [
    { name: 'a', fault: 'a kill', mustHold: 'all', inject: () => Promise.resolve({}) },
  ];
  const text = formatMarkdown([report('a', { activeMs: 12 }), report('b', {}, false)], known, {
    began: 0,
    ended: 2500,
    machine: 'here',
  });
  t.match(text, '1 of 2 passed');
  t.match(text, '| a | a kill | all | passed | yes | 1.0 s |');
  t.match(text, '**FAILED**');
  t.match(text, '| activeMs | 12 |');
  t.match(text, '| 7 | jobmanager-1 | leader.active | leads |');
  t.notMatch(text, 'p99');
  t.end();
});

await t.test('a timeline has deeds and events in order, and counts what is said too often', (t) => {
  const said = (at: number, event: string): LoggedEvent => ({
    process: 'jobmanager-1',
    event,
    at,
    fields: { event, msg: 'a message', epoch: '1.5', level: 'info' },
  });
  const events = [said(90, 'x'), ...Array.from({ length: 9 }, (_, i) => said(120 + i, 'y'))];
  const lines = timelineOf([{ at: 100, what: 'killed' }], events, 100);
  t.strictSame(lines[0], {
    ms: -10,
    process: 'jobmanager-1',
    event: 'x',
    text: 'a message epoch=1.5',
  });
  t.strictSame(lines[1], { ms: 0, process: 'drill', event: '', text: 'killed' });
  t.equal(lines.length, 9);
  t.strictSame(lines.at(-1)?.text, '3 more of these up to now');
  t.end();
});
