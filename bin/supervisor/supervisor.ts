/** The driver of supervision.machine.ts: one child process, its channel, and the depositions it causes. */
import { fork, type ChildProcess } from 'node:child_process';
import { constants } from 'node:os';
import type { CancelTimer } from '../../lib/base/clock.js';
import type { Env } from '../../lib/base/env.js';
import type { TaskManagerId } from '../../lib/base/ids.js';
import { formatEpoch, type Candidacy } from '../../ha/services.js';
import { startTimeOf } from '../local/managed-process.js';
import { writePidFile } from './pid-file.js';
import { Starvation } from './starvation.js';
import {
  SupervisionMachine,
  type SupervisionEffect,
  type SupervisionInput,
  type SupervisionOptions,
} from './supervision.machine.js';
import { supervisedVariable, type SupervisedMessage } from './supervisor-link.js';

export interface SupervisorOptions extends SupervisionOptions {
  /** Compiled program of the child, and its arguments. */
  readonly entry: string;
  readonly args: readonly string[];
  /** Gets the child's pid whenever one is started. */
  readonly pidFile?: string;
}

/** Both resolve with whether there was something to remove, and reject when the store did not answer in time. */
export interface Deposer {
  depose(candidacy: Candidacy): Promise<boolean>;
  removeTaskManager(taskManagerId: TaskManagerId, pid: number): Promise<boolean>;
}

/** How long the supervisor's own end waits for a deposition under way. */
const lastDepositionMs = 3_000;

export class Supervisor {
  readonly #env: Env;
  readonly #options: SupervisorOptions;
  readonly #openDeposer: (() => Promise<Deposer>) | undefined;
  #deposer: Promise<Deposer> | undefined;
  readonly #machine: SupervisionMachine;
  readonly #depositions = new Set<Promise<void>>();
  readonly #onEnd: (code: number) => void;
  #child: ChildProcess | undefined;
  #starvation: Starvation | undefined;
  #startedAt = 0;
  #candidacy: Candidacy | undefined;
  #taskManagerId: TaskManagerId | undefined;
  #cancelTimer: CancelTimer = () => undefined;

  /** Without high availability there is nobody to depose, and no `openDeposer`. */
  constructor(
    env: Env,
    openDeposer: (() => Promise<Deposer>) | undefined,
    options: SupervisorOptions,
    onEnd: (code: number) => void,
  ) {
    this.#env = env;
    this.#openDeposer = openDeposer;
    this.#options = options;
    this.#onEnd = onEnd;
    this.#machine = new SupervisionMachine(options);
  }

  start(): void {
    this.#step({ type: 'started' });
    this.#deposer = this.#openDeposer?.();
    this.#deposer?.catch((err: unknown) => {
      this.#env.log.warn(
        { event: 'supervisor.depose-failed', err },
        'no way to depose the process',
      );
    });
    setInterval(() => {
      this.#step({ type: 'tick', starvedMs: this.#starvation?.sinceLast() ?? 0 });
    }, this.#options.heartbeatIntervalMs).unref();
  }

  stop(): void {
    this.#step({ type: 'stopRequested' });
  }

  /** Starts the process now if it waits to be started again. */
  wake(): void {
    this.#step({ type: 'wakeRequested' });
  }

  #step(input: SupervisionInput): void {
    for (const effect of this.#machine.step(input, this.#env.clock.now())) this.#execute(effect);
  }

  #execute(effect: SupervisionEffect): void {
    const { clock, log } = this.#env;
    switch (effect.type) {
      case 'start':
        this.#start();
        break;
      case 'terminate':
        // A stopped process must run to end in order.
        this.#child?.kill('SIGCONT');
        this.#child?.kill('SIGTERM');
        break;
      case 'kill':
        log.warn(
          {
            event:
              effect.reason === 'silent' ? 'supervisor.child-silent' : 'supervisor.child-stuck',
            childPid: this.#child?.pid,
            afterMs: Math.round(effect.afterMs),
            wallTime: clock.wallTime(),
          },
          `the process is ${effect.reason}: killing it`,
        );
        this.#child?.kill('SIGKILL');
        break;
      case 'pause':
        log.info(
          { event: 'supervisor.restart-scheduled', delayMs: effect.delayMs },
          'the process will be started again',
        );
        break;
      case 'armTimer':
        this.#cancelTimer();
        this.#cancelTimer = clock.setTimer(effect.at - clock.now(), () => {
          this.#step({ type: 'timerFired' });
        });
        break;
      case 'cancelTimer':
        this.#cancelTimer();
        break;
      case 'end':
        void this.#end(effect.code);
        break;
    }
  }

  #start(): void {
    const { entry, args, pidFile } = this.#options;
    const child = fork(entry, args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: { ...process.env, [supervisedVariable]: '1' },
    });
    this.#child = child;
    this.#startedAt = this.#env.clock.now();
    let ended = false;
    const onEnded = (code: number, signal: NodeJS.Signals | null): void => {
      if (ended) return;
      ended = true;
      this.#onExited(child, code, signal);
    };
    child.on('exit', (code, signal) => {
      onEnded(code ?? 128 + (signal === null ? 0 : constants.signals[signal]), signal);
    });
    child.on('error', (err) => {
      this.#env.log.warn({ err, event: 'supervisor.channel' }, 'no way to the process');
      if (child.pid === undefined) onEnded(1, null);
    });
    child.on('message', (message) => {
      if (ended) this.#onLateMessage(message as SupervisedMessage);
      else this.#onMessage(message as SupervisedMessage);
    });
    if (child.pid === undefined) return;
    this.#starvation = new Starvation(child.pid);
    if (pidFile !== undefined) {
      writePidFile(pidFile, { pid: child.pid, startedAt: startTimeOf(child.pid) });
    }
    const wallTime = this.#env.clock.wallTime();
    this.#env.log.info(
      { event: 'supervisor.child-started', childPid: child.pid, wallTime },
      'process started',
    );
  }

  #onMessage(message: SupervisedMessage): void {
    switch (message.type) {
      case 'heartbeat':
        this.#step({ type: 'heartbeat' });
        break;
      case 'candidacy':
        this.#candidacy = message.candidacy ?? undefined;
        break;
      case 'taskManager':
        this.#taskManagerId = message.taskManagerId;
        break;
    }
  }

  /** Its last words may be read after its end. */
  #onLateMessage(message: SupervisedMessage): void {
    if (message.type === 'candidacy' && message.candidacy !== null) this.#depose(message.candidacy);
  }

  /** The deposition goes out before anything else, the log line included. */
  #onExited(child: ChildProcess, code: number, signal: NodeJS.Signals | null): void {
    const { clock, log } = this.#env;
    const candidacy = this.#candidacy;
    this.#candidacy = undefined;
    if (candidacy !== undefined) this.#depose(candidacy);
    log.info(
      {
        event: 'supervisor.child-exited',
        childPid: child.pid,
        code,
        signal,
        livedMs: Math.round(clock.now() - this.#startedAt),
        ...describeCandidacy(candidacy),
        wallTime: clock.wallTime(),
      },
      'process ended',
    );
    this.#child = undefined;
    if (this.#taskManagerId !== undefined && child.pid !== undefined) {
      this.#removeTaskManager(this.#taskManagerId, child.pid);
    }
    this.#step({ type: 'exited', code });
  }

  #depose(candidacy: Candidacy): void {
    const { clock, log } = this.#env;
    const began = clock.now();
    this.#track(
      this.#deposer
        ?.then((one) => one.depose(candidacy))
        .then((deposed) => {
          log.info(
            {
              event: 'supervisor.deposed',
              ...describeCandidacy(candidacy),
              deposed,
              tookMs: Math.round(clock.now() - began),
              wallTime: clock.wallTime(),
            },
            deposed ? 'its candidacy is ended' : 'its candidacy had ended already',
          );
        }),
      'supervisor.depose-failed',
    );
  }

  #removeTaskManager(taskManagerId: TaskManagerId, pid: number): void {
    this.#track(
      this.#deposer
        ?.then((one) => one.removeTaskManager(taskManagerId, pid))
        .then((removed) => {
          this.#env.log.info({ event: 'supervisor.unregistered', removed }, 'registration removed');
        }),
      'supervisor.unregister-failed',
    );
  }

  /** A failed deposition leaves what it was for to the lease. */
  #track(work: Promise<void> | undefined, failedEvent: string): void {
    if (work === undefined) return;
    const tracked: Promise<void> = work
      .catch((err: unknown) => {
        this.#env.log.warn({ event: failedEvent, err }, 'left to the lease');
      })
      .finally(() => this.#depositions.delete(tracked));
    this.#depositions.add(tracked);
  }

  async #end(code: number): Promise<void> {
    const late = new Promise<void>((resolve) => {
      setTimeout(resolve, lastDepositionMs).unref();
    });
    await Promise.race([Promise.all(this.#depositions), late]);
    this.#env.log.info({ event: 'supervisor.ended', exitCode: code }, 'supervisor ends');
    this.#onEnd(code);
  }
}

function describeCandidacy(candidacy: Candidacy | undefined): { epoch?: string } {
  return candidacy?.epoch === undefined ? {} : { epoch: formatEpoch(candidacy.epoch) };
}
