import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { MillraceError } from '../base/errors.js';

/** Only processes of this machine reach it. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '').toLowerCase();
  return (
    name === 'localhost' ||
    name.endsWith('.localhost') ||
    name === '::1' ||
    /^127(\.\d{1,3}){3}$/.test(name)
  );
}

/** @throws CONFIG: whoever reaches REST can run code, so off loopback a token is required. */
export function checkBinding(bindAddress: string, token: string | undefined): void {
  if (isLoopback(bindAddress) || (token !== undefined && token !== '')) return;
  throw new MillraceError(
    'CONFIG',
    `rest.bind-address is ${bindAddress}, which other machines reach, and rest.token is not set. REST runs code: set rest.token, or bind to localhost`,
  );
}

/**
 * Refuses a request without the token, and one that a web page of another site made a browser send: a browser on this
 * machine reaches loopback, too (it sends Origin; a name that was rebound to 127.0.0.1 shows in Host).
 *
 * @throws UNAUTHORIZED
 */
export function checkAccess(headers: IncomingHttpHeaders, token: string | undefined): void {
  if (token !== undefined && token !== '') {
    if (isSame(headers.authorization ?? '', `Bearer ${token}`)) return;
    throw new MillraceError(
      'UNAUTHORIZED',
      'the request carries no valid token: send rest.token as `Authorization: Bearer ...`',
    );
  }
  const host = headers.host ?? '';
  if (!isLoopback(hostName(host))) {
    throw new MillraceError(
      'UNAUTHORIZED',
      `requests for host '${host}' are not answered without a token`,
    );
  }
  const { origin } = headers;
  if (origin !== undefined && (!URL.canParse(origin) || new URL(origin).host !== host)) {
    throw new MillraceError('UNAUTHORIZED', `requests of the site '${origin}' are not answered`);
  }
}

function hostName(host: string): string {
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : '';
}

/** In time that does not depend on where they differ. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
