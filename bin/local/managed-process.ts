/** Processes of a local cluster: started detached, known by pid and start time, ended by pid only. */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export type ProcessRole = 'etcd' | 'jobmanager' | 'taskmanager';

/** What the state file keeps of a process. */
export interface ManagedProcess {
  readonly role: ProcessRole;
  /** `etcd-1`, `jobmanager-2`: unique in the cluster. */
  readonly name: string;
  readonly pid: number;
  /** Kernel start time, so that a pid given to another program later is not mistaken for ours. Empty where unknown. */
  readonly startedAt: string;
  /** Standard output and error. */
  readonly outputFile: string;
}

export interface ProcessCommand {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

/** Starts a process that outlives this one; its output is appended to a file. */
export function startDetached(
  role: ProcessRole,
  name: string,
  outputFile: string,
  { command, args, env }: ProcessCommand,
): ManagedProcess {
  mkdirSync(dirname(outputFile), { recursive: true });
  const output = openSync(outputFile, 'a');
  try {
    const child = spawn(command, args, {
      detached: true,
      stdio: ['ignore', output, output],
      ...(env !== undefined && { env }),
    });
    // A command that cannot be started is reported by the readiness check, which finds no process.
    child.on('error', () => undefined);
    child.unref();
    const pid = child.pid ?? -1;
    return { role, name, pid, startedAt: startTimeOf(pid), outputFile };
  } finally {
    closeSync(output);
  }
}

export function isAlive(process_: Pick<ManagedProcess, 'pid' | 'startedAt'>): boolean {
  if (process_.pid <= 0) return false;
  const state = statFields(process_.pid);
  if (state !== undefined) return state.state !== 'Z' && state.startTime === process_.startedAt;
  try {
    process.kill(process_.pid, 0);
    return process_.startedAt === '';
  } catch {
    return false;
  }
}

/** Sends a signal, if the process is still ours; false when it is gone. */
export function signal(process_: ManagedProcess, name: NodeJS.Signals): boolean {
  if (!isAlive(process_)) return false;
  try {
    return process.kill(process_.pid, name);
  } catch {
    return false;
  }
}

/** Asks with SIGTERM (woken by SIGCONT, should it be stopped), then ends with SIGKILL; resolves when all are gone. */
export async function endProcesses(
  processes: readonly ManagedProcess[],
  graceMs: number,
): Promise<void> {
  for (const one of processes) {
    signal(one, 'SIGCONT');
    signal(one, 'SIGTERM');
  }
  if (await waitUntilGone(processes, graceMs)) return;
  for (const one of processes) signal(one, 'SIGKILL');
  await waitUntilGone(processes, 10_000);
}

export async function waitUntilGone(
  processes: readonly ManagedProcess[],
  timeoutMs: number,
): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  while (processes.some(isAlive)) {
    if (Date.now() > deadline) return false;
    await sleep(10);
  }
  return true;
}

/** Empty where unknown. */
export function startTimeOf(pid: number): string {
  return statFields(pid)?.startTime ?? '';
}

/** Fields 3 and 22 of /proc/PID/stat; undefined where there is no such file (no Linux, or no such process). */
function statFields(pid: number): { state: string; startTime: string } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The command name, in brackets, may itself hold brackets and spaces.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', startTime: fields[19] ?? '' };
}
