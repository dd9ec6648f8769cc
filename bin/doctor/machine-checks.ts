/** What this machine gives: Node.js, storage, ports, limits. */
import { constants, readFileSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, statfs } from 'node:fs/promises';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import { isPortFree } from '../local/etcd-member.js';
import { ms, ok, problem, warning, type Finding } from './finding.js';

/** `engines` of package.json. */
const leastNode = [20, 19] as const;

export function judgeNode(version: string): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const isEnough = major > leastNode[0] || (major === leastNode[0] && minor >= leastNode[1]);
  if (!isEnough) {
    return problem('Node.js', `version ${version}`, `install ${leastNode.join('.')} or later`);
  }
  if (major % 2 === 1) {
    return warning(
      'Node.js',
      `version ${version} is no long-term release`,
      'use an even major version',
    );
  }
  return ok('Node.js', `version ${version}`);
}

const probeBytes = 1024 ** 2;

/** A directory whose server is gone answers never. */
const storageTimeoutMs = 20_000;

/** Writes, syncs, reads, renames and removes a file of 1 MiB, as checkpoints do; bounded. */
export async function checkStorage(what: string, directory: string): Promise<Finding[]> {
  let timer: NodeJS.Timeout | undefined;
  const tooLate = new Promise<Finding[]>((resolve) => {
    timer = setTimeout(() => {
      const said = `${directory} does not answer within ${String(storageTimeoutMs / 1000)} s`;
      resolve([problem(what, said, 'look at the mount: its server may be gone')]);
    }, storageTimeoutMs);
  });
  try {
    return await Promise.race([tryStorage(what, directory), tooLate]);
  } finally {
    clearTimeout(timer);
  }
}

async function tryStorage(what: string, directory: string): Promise<Finding[]> {
  const path = join(directory, `.doctor-${String(process.pid)}-${Date.now().toString(36)}`);
  const bytes = Buffer.alloc(probeBytes, 0x5a);
  try {
    await mkdir(directory, { recursive: true });
    const began = performance.now();
    const file = await open(path, 'wx');
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    const written = performance.now();
    await rename(path, `${path}.renamed`);
    await syncDirectory(directory);
    const renamed = performance.now();
    const read = await readFile(`${path}.renamed`);
    const readAt = performance.now();
    if (!read.equals(bytes)) {
      return [
        problem(what, `${directory} gives back other bytes than were written`, 'replace the disk'),
      ];
    }
    const figures = `1 MiB written and synced in ${ms(written - began)}, renamed in ${ms(renamed - written)}, read in ${ms(readAt - renamed)}`;
    const findings = [
      written - began > 1_000
        ? warning(
            what,
            `${directory}: ${figures}: slow`,
            'checkpoints wait for it: use a faster disk',
          )
        : ok(what, `${directory}: ${figures}`),
    ];
    findings.push(...(await checkSpace(what, directory)));
    return findings;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return [
      problem(
        what,
        `${directory} cannot be used: ${message}`,
        'create it, give this user the right to write there, or free space',
      ),
    ];
  } finally {
    await rm(path, { force: true }).catch(() => undefined);
    await rm(`${path}.renamed`, { force: true }).catch(() => undefined);
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function checkSpace(what: string, directory: string): Promise<Finding[]> {
  const { bsize, blocks, bavail } = await statfs(directory);
  return judgeSpace(what, directory, bavail * bsize, blocks * bsize);
}

export function judgeSpace(
  what: string,
  directory: string,
  freeBytes: number,
  totalBytes: number,
): Finding[] {
  const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
  const said = `${directory}: ${gib(freeBytes)} of ${gib(totalBytes)} free`;
  const advice = 'free space or use a larger disk: without space no checkpoint completes';
  if (freeBytes < 256 * 1024 ** 2) return [problem(what, said, advice)];
  if (freeBytes < 0.1 * totalBytes && freeBytes < 20 * 1024 ** 3) {
    return [warning(what, said, advice)];
  }
  return [ok(what, said)];
}

/** @param port 0: chosen at the start, nothing to check. */
export async function checkPort(
  key: string,
  host: string,
  port: number,
  isOurs: () => Promise<boolean>,
): Promise<Finding | undefined> {
  if (port === 0) return undefined;
  const where = `${host}:${String(port)} (${key})`;
  if (await isPortFree(port, host)) return ok('port', `${where} is free`);
  if (await isOurs()) return ok('port', `${where} is used by a JobManager, which answers`);
  return warning(
    'port',
    `${where} is taken`,
    `fine if a process of this cluster runs here; else end the other one or set ${key}`,
  );
}

export function checkLimits(): Finding[] {
  return [
    judgeOpenFiles(softLimitOfOpenFiles()),
    judgeMemory(process.constrainedMemory(), totalmem(), freemem()),
    judgeCores(availableParallelism()),
  ];
}

/** Undefined where the kernel does not say (no Linux). Infinity: unlimited. */
function softLimitOfOpenFiles(): number | undefined {
  try {
    const line = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
    if (line === null) return undefined;
    return line[1] === 'unlimited' ? Infinity : Number(line[1]);
  } catch {
    return undefined;
  }
}

export function judgeOpenFiles(limit: number | undefined): Finding {
  const check = 'open files';
  if (limit === undefined) {
    return { check, level: 'unknown', message: 'the limit cannot be read on this system' };
  }
  if (limit < 4_096) {
    return warning(
      check,
      `at most ${String(limit)} (ulimit -n): channels between many slots, file sources and checkpoints take one each`,
      'raise it to 65536 (LimitNOFILE of the systemd unit, or ulimit -n)',
    );
  }
  return ok(check, limit === Infinity ? 'unlimited' : `at most ${String(limit)}`);
}

/** @param constrained of the cgroup; 0 or huge where there is none. */
export function judgeMemory(constrained: number, total: number, free: number): Finding {
  const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
  const isLimited = constrained > 0 && constrained < total;
  const usable = isLimited ? constrained : total;
  const said = isLimited
    ? `${gib(constrained)} for this group of processes (machine: ${gib(total)})`
    : `${gib(total)}, ${gib(free)} free`;
  if (usable < 1024 ** 3) {
    return warning(
      'memory',
      said,
      'a JobManager takes about 100 MiB, a TaskManager as much and its slots’ state: give the machine 2 GiB',
    );
  }
  return ok('memory', said);
}

export function judgeCores(cores: number): Finding {
  if (cores < 2) {
    return warning(
      'cores',
      '1 core: a slot that computes delays heartbeats and lease renewals beside it',
      'give JobManagers, TaskManagers and etcd cores of their own',
    );
  }
  return ok('cores', String(cores));
}
