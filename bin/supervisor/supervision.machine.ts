/**
 * What a supervisor does about its process: when it is started again, when it counts as hung, and when the
 * supervisor ends with it. It knows nothing of candidacies: its driver deposes whatever the process held.
 *
 * Silence is counted by ticks, a late one for two at most: a supervisor that did not run itself (a stopped machine,
 * an overloaded one) must not take its own absence for its process's. Nor is a process hung that had no processor.
 */
import { checkTransition, defineTransitions } from '../../lib/base/transitions.js';

export type SupervisionState = 'IDLE' | 'RUNNING' | 'PAUSING' | 'STOPPING' | 'ENDED';

export const supervisionTransitions = defineTransitions<SupervisionState>({
  IDLE: ['RUNNING', 'ENDED'],
  RUNNING: ['PAUSING', 'STOPPING', 'ENDED'],
  PAUSING: ['RUNNING', 'ENDED'],
  STOPPING: ['ENDED'],
  ENDED: [],
});

export type SupervisionInput =
  | { readonly type: 'started' }
  | { readonly type: 'heartbeat' }
  /** Every `heartbeatIntervalMs`. `starvedMs`: how long the process waited for a processor since the last one. */
  | { readonly type: 'tick'; readonly starvedMs: number }
  /** Death by a signal is 128 + its number. */
  | { readonly type: 'exited'; readonly code: number }
  /** The second time: at once. */
  | { readonly type: 'stopRequested' }
  /** Somebody wants the process back before its pause is over. */
  | { readonly type: 'wakeRequested' }
  | { readonly type: 'timerFired' };

export type SupervisionEffect =
  | { readonly type: 'start' }
  | { readonly type: 'terminate' }
  | { readonly type: 'kill'; readonly reason: 'silent' | 'not ending'; readonly afterMs: number }
  | { readonly type: 'pause'; readonly delayMs: number }
  | { readonly type: 'armTimer'; readonly at: number }
  | { readonly type: 'cancelTimer' }
  /** Ends the supervisor with this exit code. */
  | { readonly type: 'end'; readonly code: number };

export interface SupervisionOptions {
  readonly heartbeatIntervalMs: number;
  /** 0: a silent process is left alone. */
  readonly heartbeatTimeoutMs: number;
  /** Whether the first restart waits as well: a JobManager's must not compete with the takeover. */
  readonly pausesFirst: boolean;
  readonly initialDelayMs: number;
  readonly maxDelayMs: number;
  /** Time for an orderly end. */
  readonly stopTimeoutMs: number;
  /** Exit codes after which the process is not started again. */
  readonly finalExitCodes: readonly number[];
}

/** A process that lived so long begins with the first delay again. */
const longLifeMs = 60_000;

export class SupervisionMachine {
  readonly #options: SupervisionOptions;
  #state: SupervisionState = 'IDLE';
  #startedAt = 0;
  #restarts = 0;
  /** undefined until the process was heard once: loading programs may take longer than any timeout. */
  #silentMs: number | undefined;
  #tickedAt = 0;

  constructor(options: SupervisionOptions) {
    this.#options = options;
  }

  get state(): SupervisionState {
    return this.#state;
  }

  step(input: SupervisionInput, now: number): SupervisionEffect[] {
    switch (input.type) {
      case 'started':
        return this.#start(now);
      case 'heartbeat':
        this.#silentMs = 0;
        return [];
      case 'tick':
        return this.#onTick(input.starvedMs, now);
      case 'exited':
        return this.#onExited(input.code, now);
      case 'stopRequested':
        return this.#onStopRequested(now);
      case 'wakeRequested':
        return this.#state === 'PAUSING' ? [{ type: 'cancelTimer' }, ...this.#start(now)] : [];
      case 'timerFired':
        if (this.#state === 'PAUSING') return this.#start(now);
        return this.#state === 'STOPPING' ? [this.#kill('not ending')] : [];
    }
  }

  #start(now: number): SupervisionEffect[] {
    this.#go('RUNNING');
    this.#startedAt = now;
    this.#tickedAt = now;
    this.#silentMs = undefined;
    return [{ type: 'start' }];
  }

  #onTick(starvedMs: number, now: number): SupervisionEffect[] {
    const { heartbeatIntervalMs, heartbeatTimeoutMs } = this.#options;
    const ran = Math.max(0, now - this.#tickedAt - starvedMs);
    const elapsed = Math.min(ran, 2 * heartbeatIntervalMs);
    this.#tickedAt = now;
    if (this.#silentMs === undefined || this.#state !== 'RUNNING') return [];
    this.#silentMs += elapsed;
    if (heartbeatTimeoutMs === 0 || this.#silentMs <= heartbeatTimeoutMs) return [];
    const afterMs = this.#silentMs;
    this.#silentMs = undefined;
    return [{ type: 'kill', reason: 'silent', afterMs }];
  }

  #onExited(code: number, now: number): SupervisionEffect[] {
    if (this.#state !== 'RUNNING' && this.#state !== 'STOPPING') return [];
    if (this.#state === 'STOPPING' || this.#options.finalExitCodes.includes(code)) {
      this.#go('ENDED');
      return [{ type: 'cancelTimer' }, { type: 'end', code }];
    }
    if (now - this.#startedAt >= longLifeMs) this.#restarts = 0;
    const delayMs = this.#delay();
    this.#restarts += 1;
    this.#go('PAUSING');
    return [
      { type: 'pause', delayMs },
      { type: 'armTimer', at: now + delayMs },
    ];
  }

  #delay(): number {
    const { pausesFirst, initialDelayMs, maxDelayMs } = this.#options;
    const doublings = pausesFirst ? this.#restarts : this.#restarts - 1;
    if (doublings < 0) return 0;
    return Math.min(maxDelayMs, initialDelayMs * 2 ** Math.min(doublings, 32));
  }

  #onStopRequested(now: number): SupervisionEffect[] {
    switch (this.#state) {
      case 'RUNNING':
        this.#go('STOPPING');
        return [{ type: 'terminate' }, { type: 'armTimer', at: now + this.#options.stopTimeoutMs }];
      case 'STOPPING':
        return [this.#kill('not ending')];
      case 'ENDED':
        return [];
      default:
        this.#go('ENDED');
        return [{ type: 'cancelTimer' }, { type: 'end', code: 0 }];
    }
  }

  #kill(reason: 'not ending'): SupervisionEffect {
    return { type: 'kill', reason, afterMs: this.#options.stopTimeoutMs };
  }

  #go(to: SupervisionState): void {
    checkTransition('supervision', supervisionTransitions, this.#state, to);
    this.#state = to;
  }
}
