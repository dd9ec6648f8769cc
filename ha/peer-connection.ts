/**
 * An idle connection to another JobManager's control port, to notice its end. It speaks HTTP/2, as the server there
 * does: a connection that answered none of its pings would be closed for that.
 */
import { connect } from 'node:http2';
import type { ConnectionEnd } from './peer-detection.machine.js';

export interface PeerConnectionListener {
  onOpened(): void;
  /** Once, unless this side closed it. */
  onEnded(how: ConnectionEnd): void;
}

export interface PeerConnection {
  close(): void;
}

export type PeerConnector = (address: string, listener: PeerConnectionListener) => PeerConnection;

const connectTimeoutMs = 500;

/** Never throws; ends come later, never within the call. */
export const connectPeer: PeerConnector = (address, listener) => {
  const session = connect(`http://${address}`);
  let isOpen = false;
  let isOver = false;
  const end = (how: ConnectionEnd): void => {
    if (isOver) return;
    isOver = true;
    session.destroy();
    listener.onEnded(how);
  };
  session.setTimeout(connectTimeoutMs, () => {
    if (!isOpen) end('failed');
  });
  session.on('connect', () => {
    session.setTimeout(0);
    if (isOver) return;
    isOpen = true;
    listener.onOpened();
  });
  session.on('error', (error) => {
    end(isOpen ? 'closed' : isRefusal(error) ? 'refused' : 'failed');
  });
  session.on('close', () => {
    end(isOpen ? 'closed' : 'failed');
  });
  // It keeps no process from ending.
  session.unref();
  return {
    close: () => {
      isOver = true;
      session.destroy();
    },
  };
};

/** A name with several addresses is refused when all of them are. */
function isRefusal(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.every(isRefusal);
  return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
}
