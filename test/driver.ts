/**
 * Everything CI runs, in one program: the static checks, then the tiers of tests, each file a process of its
 * own that speaks TAP. Ends with the line "N passed, N failed". Called by bin/bootstrap.mjs after the build.
 *
 *   npm test                      everything
 *   npm run test:unit             one tier
 *   node bin/bootstrap.mjs test unit/config     files whose path contains a text
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ownRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** Another tree and limit, for the test of this program. */
const root = process.env['MILLRACE_INTERNAL_TEST_ROOT'] ?? ownRoot;
const timeoutOverride = process.env['MILLRACE_INTERNAL_TEST_TIMEOUT_MS'];
const startedAt = Date.now();

interface Tier {
  readonly name: string;
  /** Test files at once; one where timing or the whole machine is part of the test. */
  readonly jobs: number;
  /** Limit for one file: a test that hangs fails instead of stopping everything. */
  readonly fileTimeoutMs: number;
}

const cores = Math.min(2, availableParallelism());
const tiers: readonly Tier[] = [
  { name: 'unit', jobs: cores, fileTimeoutMs: 90_000 },
  { name: 'scenario', jobs: cores, fileTimeoutMs: 90_000 },
  { name: 'tidy', jobs: cores, fileTimeoutMs: 180_000 },
  { name: 'conformance', jobs: cores, fileTimeoutMs: 120_000 },
  { name: 'integration', jobs: 1, fileTimeoutMs: 180_000 },
  { name: 'e2e', jobs: 1, fileTimeoutMs: 240_000 },
];
const testFile = /\.(test|itest|drill)\.ts$/;

interface Check {
  readonly name: string;
  readonly command: readonly string[];
}

const tool = (path: string, ...args: string[]): string[] => [
  process.execPath,
  join(ownRoot, 'node_modules', path),
  ...args,
];
const checks: readonly Check[] = [
  {
    name: 'format',
    command: tool('prettier/bin/prettier.cjs', '--check', '--log-level=warn', '.'),
  },
  { name: 'lint', command: tool('eslint/bin/eslint.js', '--max-warnings=0', '.') },
  {
    name: 'layers',
    command: tool(
      'dependency-cruiser/bin/dependency-cruise.mjs',
      '--config=.dependency-cruiser.cjs',
      ...['lib', 'ha', 'checkpoint', 'bin', 'config'].filter((folder) =>
        existsSync(join(root, folder)),
      ),
    ),
  },
];

interface Outcome {
  passed: number;
  failed: number;
  skipped: number;
}

function say(line: string): void {
  const seconds = ((Date.now() - startedAt) / 1000).toFixed(1).padStart(6);
  process.stdout.write(`[${seconds} s] ${line}\n`);
}

interface Finished {
  readonly code: number | null;
  readonly output: string;
  readonly ms: number;
  readonly timedOut: boolean;
}

/** Runs a command to its end; one that takes too long is ended with everything it started. */
function run(command: readonly string[], timeoutMs: number): Promise<Finished> {
  const [program = '', ...args] = command;
  const from = Date.now();
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      // Its own group, so that the processes a hung test started end with it.
      detached: true,
      env: { ...process.env, FORCE_COLOR: '0', TAP_SNAPSHOT: '0' },
    });
    const chunks: Buffer[] = [];
    let timedOut = false;
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk));
    const endGroup = (): void => {
      if (child.pid === undefined) return;
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch (error) {
        // ESRCH: nothing of the group is left, as it should be.
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    };
    const timer = setTimeout(() => {
      timedOut = true;
      endGroup();
    }, timeoutMs);
    process.once('exit', endGroup);
    const finish = (code: number | null): void => {
      clearTimeout(timer);
      process.removeListener('exit', endGroup);
      resolve({
        code,
        output: Buffer.concat(chunks).toString(),
        ms: Date.now() - from,
        timedOut,
      });
    };
    child.once('error', (error) => {
      chunks.push(Buffer.from(error.message));
      finish(null);
    });
    child.once('close', finish);
  });
}

/** Counts top-level TAP test points: the sentences of the file. */
function countPoints(tap: string): Outcome {
  const outcome = { passed: 0, failed: 0, skipped: 0 };
  for (const line of tap.split('\n')) {
    if (!/^(not )?ok\b/.test(line)) continue;
    if (/ # (SKIP|TODO)/i.test(line)) outcome.skipped++;
    else if (line.startsWith('not')) outcome.failed++;
    else outcome.passed++;
  }
  return outcome;
}

async function runFile(file: string, tier: Tier): Promise<Outcome> {
  const compiled = join('build', file.replace(/\.ts$/, '.js'));
  const limitMs = Number(timeoutOverride ?? tier.fileTimeoutMs);
  const { code, output, ms, timedOut } = await run(
    [process.execPath, '--enable-source-maps', compiled],
    limitMs,
  );
  const outcome = countPoints(output);
  // A file that crashed, hung or tested nothing has failed, whatever its points say.
  const isBroken = code !== 0 || timedOut || outcome.passed + outcome.skipped === 0;
  if (isBroken && outcome.failed === 0) outcome.failed = 1;
  const seconds = `${(ms / 1000).toFixed(1)} s`;
  if (outcome.failed === 0) {
    const skipped = outcome.skipped === 0 ? '' : `, ${outcome.skipped} skipped`;
    say(`${file}: ${outcome.passed} passed${skipped} (${seconds})`);
    return outcome;
  }
  const why = timedOut ? `no end within ${limitMs / 1000} s` : `exit code ${code}`;
  process.stdout.write(`${output}\n`);
  say(`${file}: FAILED, ${outcome.failed} failed, ${outcome.passed} passed, ${why} (${seconds})`);
  return outcome;
}

async function runTier(tier: Tier, files: readonly string[], total: Outcome): Promise<void> {
  say(`${tier.name}: ${files.length} files`);
  const queue = [...files];
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const { passed, failed, skipped } = await runFile(file, tier);
      total.passed += passed;
      total.failed += failed;
      total.skipped += skipped;
    }
  };
  await Promise.all(Array.from({ length: tier.jobs }, worker));
}

async function runCheck({ name, command }: Check, total: Outcome): Promise<void> {
  say(`${name} …`);
  const { code, output, ms } = await run(command, 300_000);
  if (code === 0) {
    total.passed++;
    say(`${name}: clean (${(ms / 1000).toFixed(1)} s)`);
  } else {
    total.failed++;
    process.stdout.write(`${output}\n`);
    say(`${name}: FAILED`);
  }
}

/** From the sources, not from build/, where the output of a deleted test may lie. */
function testFilesOf(tier: Tier): string[] {
  const folder = join(root, 'test', tier.name);
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && testFile.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

async function main(args: readonly string[]): Promise<void> {
  const total = { passed: 0, failed: 0, skipped: 0 };
  const isAll = args.length === 0;
  if (isAll || args.includes('checks')) {
    // Together: lint takes most of the time, and one core.
    await Promise.all(checks.map((check) => runCheck(check, total)));
  }
  const wanted = (file: string): boolean =>
    isAll || args.some((arg) => file.startsWith(`test/${arg}/`) || file.includes(arg));
  for (const tier of tiers) {
    const files = testFilesOf(tier).filter(wanted);
    if (files.length > 0) await runTier(tier, files, total);
  }
  if (total.passed + total.failed === 0) {
    say(`no test matches ${args.join(' ')}`);
    total.failed++;
  }
  if (total.skipped > 0) say(`${total.skipped} skipped`);
  process.stdout.write(`${total.passed} passed, ${total.failed} failed\n`);
  process.exitCode = total.failed === 0 ? 0 : 1;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    process.exit(signal === 'SIGINT' ? 130 : 143);
  });
}
await main(process.argv.slice(2));
