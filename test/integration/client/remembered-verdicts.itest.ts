/** When the compiler is loaded again for a job file, and when not. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import t, { type Test } from 'tap';
import { typeCheckJob } from '../../../lib/client/type-check.js';
import { writeJob } from '../../support/job-files.js';

t.setTimeout(120_000);

/** Few libraries: this is not about what the compiler knows. */
const config = '{"compilerOptions":{"strict":true,"lib":["es5"],"types":[]}}';

interface Checked {
  readonly folder: string;
  readonly cacheDirectory: string;
  /** Whether the compiler was started; rejects with its complaint. */
  check(): Promise<boolean>;
}

async function checkedJob(t: Test): Promise<Checked> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-verdicts-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true });
  });
  const cacheDirectory = join(folder, 'cache/type-check');
  mkdirSync(join(folder, 'job'));
  writeFileSync(join(folder, 'tsconfig.json'), config);
  writeJob(
    folder,
    "import type { Row } from './row.js';\nexport const row: Row = { n: 1 };",
    'job/a.ts',
  );
  writeFileSync(join(folder, 'job/row.ts'), 'export interface Row { n: number }');
  const check = async (): Promise<boolean> => {
    let compilers = 0;
    const count = (): void => void (compilers += 1);
    process.on('worker', count);
    try {
      await typeCheckJob({
        file: join(folder, 'job/a.ts'),
        workingDirectory: folder,
        cacheDirectory,
      });
    } finally {
      process.off('worker', count);
    }
    return compilers > 0;
  };
  t.equal(await check(), true, 'the first time the compiler is needed');
  t.equal(await check(), false, 'the second time it is not');
  return { folder, cacheDirectory, check };
}

t.test('a good verdict holds while every file and every missing file is as it was', async (t) => {
  const { folder, check } = await checkedJob(t);
  const row = join(folder, 'job/row.ts');
  utimesSync(row, 1, 1);
  t.equal(await check(), false, 'a touched file has the same text');

  const before = statSync(row);
  writeFileSync(row, 'export interface Row { m: number }');
  utimesSync(row, before.atime, before.mtime);
  await t.rejects(check(), { code: 'JOB_TYPE_ERROR' }, 'an import changed, size and time the same');
  await t.rejects(check(), { code: 'JOB_TYPE_ERROR' }, 'a bad verdict is not remembered');
  writeFileSync(row, 'export interface Row { n: number }');
  t.equal(await check(), false, 'what was good is good again');

  writeFileSync(join(folder, 'tsconfig.json'), config.replace('true', 'false'));
  t.equal(await check(), true, 'tsconfig.json was changed');
  writeFileSync(join(folder, 'job/tsconfig.json'), config);
  t.equal(await check(), true, 'one nearer to the job appeared');
  t.equal(await check(), false);

  rmSync(row);
  await t.rejects(check(), { code: 'JOB_TYPE_ERROR' }, 'an import was deleted');
});

t.test('a new file that an import would resolve to instead counts', async (t) => {
  const { folder, check } = await checkedJob(t);
  rmSync(join(folder, 'job/row.ts'));
  mkdirSync(join(folder, 'job/row.js'));
  writeFileSync(join(folder, 'job/row.js/index.ts'), 'export interface Row { n: number }');
  t.equal(await check(), true);
  t.equal(await check(), false);
  writeFileSync(join(folder, 'job/row.ts'), 'export interface Row { n: string }');
  await t.rejects(check(), { code: 'JOB_TYPE_ERROR' });
});

t.test('a damaged verdict is no verdict, and a folder nobody can write no obstacle', async (t) => {
  const { folder, cacheDirectory, check } = await checkedJob(t);
  t.equal(statSync(cacheDirectory).mode & 0o777, 0o700);
  const [name = ''] = readdirSync(cacheDirectory);
  const file = join(cacheDirectory, name);
  const whole = readFileSync(file, 'utf8');
  for (const damaged of ['', '[]', 'null', whole.slice(0, 200)]) {
    writeFileSync(file, damaged);
    t.equal(await check(), true, damaged);
    t.equal(readFileSync(file, 'utf8'), whole, 'and is replaced');
  }
  rmSync(join(folder, 'cache'), { recursive: true });
  writeFileSync(join(folder, 'cache'), 'a file is in the way');
  t.equal(await check(), true);
});

t.test('the oldest verdicts make room', async (t) => {
  const { folder, cacheDirectory, check } = await checkedJob(t);
  for (let i = 0; i < 120; i += 1) {
    const file = join(cacheDirectory, `${String(i)}.json`);
    writeFileSync(file, '[]');
    utimesSync(file, 1000 + i, 1000 + i);
  }
  writeFileSync(join(folder, 'job/row.ts'), 'export interface Row { n: number | string }');
  t.equal(await check(), true);
  const left = readdirSync(cacheDirectory);
  t.equal(left.length, 100);
  t.ok(left.includes('119.json'));
  t.notOk(left.includes('20.json'));
  t.equal(await check(), false, 'the newest is still there');
});
