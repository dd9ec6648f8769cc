/** Whether a process is dead, as far as its listening port says. */
import { connect } from 'node:net';
import { sleep } from '../../base/clock.js';
import type { Env } from '../../base/env.js';
import type { IsGone } from './expected-task-managers.js';

/** A port that is just being opened refuses for a moment, too. */
const refusals = 3;
const refusalPauseMs = 20;
/** Without an answer nothing is known. */
const connectTimeoutMs = 500;

/** Gone: connections are refused several times in a row. Silence, and every other error, says nothing. */
export function tcpIsGone(env: Env): IsGone {
  return async (dataAddress) => {
    const colon = dataAddress.lastIndexOf(':');
    const host = dataAddress.slice(0, colon);
    const port = Number(dataAddress.slice(colon + 1));
    if (colon < 0 || !Number.isInteger(port) || port < 1 || port > 65_535) return false;
    for (let i = 0; i < refusals; i++) {
      if (i > 0) await sleep(env.clock, refusalPauseMs);
      if (!(await isRefused(host, port))) return false;
    }
    return true;
  };
}

function isRefused(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const done = (refused: boolean): void => {
      socket.destroy();
      resolve(refused);
    };
    socket.setTimeout(connectTimeoutMs, () => {
      done(false);
    });
    socket.once('connect', () => {
      done(false);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      // `localhost` may have two addresses: all of them refused.
      done(error.code === 'ECONNREFUSED' || isAllRefused(error));
    });
  });
}

function isAllRefused(error: unknown): boolean {
  return (
    error instanceof AggregateError &&
    error.errors.every((one) => (one as NodeJS.ErrnoException).code === 'ECONNREFUSED')
  );
}
