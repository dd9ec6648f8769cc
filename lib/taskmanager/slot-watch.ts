/**
 * Watches a slot's thread from the main thread. When one turn of a task goes on for too long, V8's debugger is asked
 * where the thread is, which works in an endless loop too and costs nothing before: the operator and the user's
 * function are logged. The thread goes on at once.
 */
import { Session } from 'node:inspector';
import { setPeriodicTimer, type CancelTimer } from '../base/clock.js';
import type { Env } from '../base/env.js';
import type { SlotDeployment } from '../gateway/task-deployment-descriptor.js';
import type { Bell } from '../network/bell.js';

export interface WatchedSlot {
  /** `Worker.threadId`. */
  readonly threadId: number;
  readonly bell: Bell;
  readonly deployment: SlotDeployment;
}

/** Where a thread was found. */
export interface FoundCall {
  readonly operator?: string;
  /** Name of the innermost function, as the bundle has it. */
  readonly function?: string;
}

/** Looks are so many a threshold; a call is looked into when it lasted two thresholds. */
const looksPerThreshold = 2;
const worthLooking = 2;
/** Between two looks into one slot: the thread stands still for some ms. */
const lookPauseMs = 30_000;
const lookTimeoutMs = 1_000;

export interface SlotWatch {
  /**
   * Resolves when nobody looks into the thread any more. NB: to be awaited before the thread is terminated: one that
   * is paused by the debugger does not end.
   */
  stop(): Promise<void>;
}

export function watchSlot(env: Env, slot: WatchedSlot, thresholdMs: number): SlotWatch {
  if (thresholdMs === 0) return { stop: () => Promise.resolve() };
  const { clock, log } = env;
  let since = 0;
  let seen: number | undefined;
  let lookedAt = -Infinity;
  let looking: Promise<void> = Promise.resolve();
  const cancel = setPeriodicTimer(clock, Math.max(1, thresholdMs / looksPerThreshold), () => {
    const now = clock.now();
    const turn = slot.bell.turn;
    if (turn === undefined || turn.number !== seen) {
      seen = turn?.number;
      since = now;
      return;
    }
    if (now - since < worthLooking * thresholdMs || now - lookedAt < lookPauseMs) return;
    lookedAt = now;
    const task = slot.deployment.tasks[turn.task];
    looking = findCall(env, slot).then((found) => {
      if (found === undefined || task === undefined) return;
      const { vertex, subtaskIndex: subtask } = task;
      const blockedMs = Math.round(clock.now() - since);
      log.warn(
        { event: 'slot.blocked', vertex: vertex.name, subtask, ...found, blockedMs },
        `operator ${found.operator ?? '(unknown)'} of ${vertex.name} (${String(subtask)}) has held up its slot's thread for ${String(blockedMs)} ms, in ${found.function ?? 'an unnamed function'}`,
      );
    });
  });
  return {
    stop: () => {
      cancel();
      return looking;
    },
  };
}

interface CallFrame {
  readonly callFrameId: string;
  readonly functionName: string;
  readonly location: { readonly scriptId: string };
}

/** In generated code `op` is the index of the operator, in an operator's own method its context knows the name. */
const inGeneratedCode = 'op';
const inOperator = 'this?.context?.operatorName';
/** `millrace/chain/<task's name, without special characters>.<subtask>.<number>.js` */
const generatedFile = /^millrace\/chain\/(.*)\.\d+\.\d+\.js$/;
/** Frames that are looked at, innermost first. */
const framesMax = 40;

/** Pauses the thread for a moment; undefined when it cannot be found or does not answer. */
export async function findCall(
  env: Env,
  { threadId, deployment }: WatchedSlot,
): Promise<FoundCall | undefined> {
  const session = new ThreadSession(threadId);
  let cancel: CancelTimer = () => undefined;
  const timeout = new Promise<undefined>((resolve) => {
    cancel = env.clock.setTimer(lookTimeoutMs, () => resolve(undefined));
  });
  try {
    return await Promise.race([locate(session, deployment), timeout]);
  } catch (error) {
    env.log.debug({ err: error }, 'could not look into a slot thread');
    return undefined;
  } finally {
    cancel();
    session.close();
  }
}

async function locate(session: ThreadSession, deployment: SlotDeployment): Promise<FoundCall> {
  await session.attached;
  const paused = session.next('Debugger.paused');
  void session.post('Debugger.enable');
  void session.post('Debugger.pause');
  const { callFrames } = (await paused) as { readonly callFrames: readonly CallFrame[] };
  const answers = callFrames.slice(0, framesMax).map(async ({ callFrameId, location }) => {
    const file = generatedFile.exec(session.scripts.get(location.scriptId) ?? '');
    const answer = (await session.post('Debugger.evaluateOnCallFrame', {
      callFrameId,
      expression: file === null ? inOperator : inGeneratedCode,
      silent: true,
      // Frames of user code are asked too: nothing of theirs may run.
      throwOnSideEffect: true,
      returnByValue: true,
    })) as { readonly result?: { readonly value?: unknown } };
    const value = answer.result?.value;
    if (typeof value === 'number') return nameOf(deployment, file?.[1] ?? '', value);
    return typeof value === 'string' ? value : undefined;
  });
  void session.post('Debugger.resume');
  // Innermost first.
  const operator = (await Promise.all(answers)).find((found) => found !== undefined);
  const name = callFrames.find(({ functionName }) => functionName !== '')?.functionName;
  return {
    ...(operator !== undefined && { operator }),
    ...(name !== undefined && { function: name }),
  };
}

/** Behind the operators of a chain come its outgoing edges, whose key selector runs for their operator. */
function nameOf({ tasks }: SlotDeployment, file: string, index: number): string | undefined {
  const plain = (text: string): string => text.replace(/\W+/g, '');
  const task = tasks.find(({ vertex }) => plain(vertex.name).startsWith(plain(file)));
  if (task === undefined) return undefined;
  const { operators } = task.vertex;
  const edge = task.outputs[index - operators.length]?.edge;
  const id = edge?.sourceOperator ?? operators[index]?.id;
  return operators.find((operator) => operator.id === id)?.name;
}

/** The inspector of one worker thread, by way of the main thread's. */
class ThreadSession {
  readonly attached: Promise<void>;
  readonly #session = new Session();
  /** URLs by id, of scripts that have one. */
  readonly scripts = new Map<string, string>();
  readonly #waiting = new Map<number, (result: unknown) => void>();
  readonly #events = new Map<string, (params: unknown) => void>();
  #id: string | undefined;
  #lastId = 0;

  constructor(threadId: number) {
    this.#session.connect();
    this.attached = new Promise((resolve) => {
      this.#session.on('NodeWorker.attachedToWorker', ({ params }) => {
        // The inspector's ids are its own; its titles carry those of the threads.
        if (!params.workerInfo.title.startsWith(`[worker ${String(threadId)}]`)) {
          this.#session.post('NodeWorker.detach', { sessionId: params.sessionId });
          return;
        }
        this.#id = params.sessionId;
        resolve();
      });
    });
    this.#session.on('NodeWorker.receivedMessageFromWorker', ({ params }) => {
      if (params.sessionId === this.#id) this.#onMessage(params.message);
    });
    this.#session.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
  }

  post(method: string, params: object = {}): Promise<unknown> {
    this.#lastId += 1;
    const id = this.#lastId;
    const message = JSON.stringify({ id, method, params });
    // Before it is sent: the answer may come within the call.
    const answer = new Promise((resolve) => this.#waiting.set(id, resolve));
    this.#session.post('NodeWorker.sendMessageToWorker', { sessionId: this.#id ?? '', message });
    return answer;
  }

  next(event: string): Promise<unknown> {
    return new Promise((resolve) => this.#events.set(event, resolve));
  }

  /** A paused thread goes on when nobody debugs it any more. */
  close(): void {
    if (this.#id !== undefined) this.#session.post('NodeWorker.detach', { sessionId: this.#id });
    this.#session.disconnect();
  }

  #onMessage(text: string): void {
    const message = JSON.parse(text) as {
      readonly id?: number;
      readonly method?: string;
      readonly result?: unknown;
      readonly params?: unknown;
    };
    if (message.id !== undefined) {
      this.#waiting.get(message.id)?.(message.result ?? {});
      this.#waiting.delete(message.id);
    } else if (message.method === 'Debugger.scriptParsed') {
      const { scriptId, url } = message.params as {
        readonly scriptId: string;
        readonly url: string;
      };
      if (url !== '') this.scripts.set(scriptId, url);
    } else if (message.method !== undefined) {
      this.#events.get(message.method)?.(message.params);
      this.#events.delete(message.method);
    }
  }
}
