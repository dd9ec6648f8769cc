/** The compiler on real job files, in its worker thread. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { prepare, writeJob } from '../../support/job-files.js';

t.setTimeout(120_000);

const head =
  "import { StreamExecutionEnvironment } from 'millrace';\nconst env = StreamExecutionEnvironment.getExecutionEnvironment();\n";

/** Outside this repository, whose tsconfig.json would count otherwise. */
function temporaryFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-jobs-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true });
  });
  return folder;
}

t.test('type errors are reported with their places, before anything else', async (t) => {
  const folder = temporaryFolder(t);
  const wrong = writeJob(
    folder,
    `${head}env.fromElements(1, 2).map((n) => n.length).print();\nawait env.execute();\nconst unused: string = 5;`,
    'wrong.ts',
  );
  await t.rejects(prepare(wrong, { typeCheck: true, workingDirectory: folder }), {
    code: 'JOB_TYPE_ERROR',
    message:
      /2 type errors:\n +wrong.ts:3:37 TS2339: Property 'length' does not exist on type 'number'.\n +wrong.ts:5:7 TS2322/,
  });
  t.ok((await prepare(wrong)).jobGraph, 'and are left alone when told so');
  const right = writeJob(
    folder,
    `${head}env.fromElements(1, 2).map((n) => n.toFixed(1)).print();\nconsole.log(process.pid);\nawait env.execute();`,
    'right.ts',
  );
  t.ok((await prepare(right, { typeCheck: true })).jobGraph);
  writeFileSync(
    join(folder, 'tsconfig.json'),
    '{"compilerOptions":{"target":"ES2022","module":"NodeNext","noUnusedLocals":true,"strict":true}}',
  );
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  const unused = writeJob(
    folder,
    `${head}const unused = 1;\nenv.fromElements(1).print();\nawait env.execute();`,
    'unused.ts',
  );
  await t.rejects(
    prepare(unused, { typeCheck: true, workingDirectory: folder }),
    { code: 'JOB_TYPE_ERROR', message: /unused.ts:3:7 TS6133/ },
    'the job’s own tsconfig counts',
  );
});
