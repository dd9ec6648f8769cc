/** Runs drills of the library as tests: real processes, one fresh cluster each. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { drills } from '../../bin/drills/drills.js';
import { runDrill } from '../../bin/drills/run-drill.js';

export async function testDrills(names: readonly string[]): Promise<void> {
  t.setTimeout(230_000);
  const folder = mkdtempSync(join(tmpdir(), 'millrace-drill-'));
  for (const name of names) {
    const drill = drills.find((one) => one.name === name);
    if (drill === undefined) throw new Error(`no drill ${name}`);
    await t.test(`${drill.fault}: ${drill.mustHold}`, async (t) => {
      const report = await runDrill(drill, {
        folder,
        progress: (line) => {
          t.comment(line);
        },
      });
      t.comment(JSON.stringify(report));
      t.equal(report.failure, undefined);
      t.ok(report.exactlyOnce, 'the committed output is exactly once');
      t.ok(report.passed);
    });
  }
  if (t.passing()) rmSync(folder, { recursive: true, force: true });
}
