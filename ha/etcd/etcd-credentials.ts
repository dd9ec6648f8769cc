/**
 * Certificates for etcd, from files that are read again while the process runs: a certificate that was renewed is used
 * for new connections without a restart. Half-written files (a new certificate beside the old key) are left alone
 * until they fit.
 */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext, rootCertificates } from 'node:tls';
import type { CancelTimer } from '../../lib/base/clock.js';
import type { Env } from '../../lib/base/env.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { Closeable } from '../../lib/base/lifecycle.js';

export interface EtcdSslFiles {
  /** PEM of the authorities that etcd's certificates are checked with. Default: those Node trusts. */
  readonly caFile?: string;
  /** PEM of this process's certificate and key, for etcd with client-cert-auth; both or none. */
  readonly certFile?: string;
  readonly keyFile?: string;
  /** Name that etcd's certificates must have, instead of the endpoint's host. */
  readonly serverName?: string;
}

export interface EtcdAuth {
  readonly username: string;
  readonly password: string;
}

/** PEM, as etcd3 takes it. */
export interface EtcdTls {
  readonly rootCertificate: Buffer;
  readonly privateKey?: Buffer;
  readonly certChain?: Buffer;
}

/** How often the files are read again. */
const reloadMs = 10_000;

const filesOf = (files: EtcdSslFiles): Partial<Record<keyof EtcdTls, string>> => ({
  ...(files.caFile !== undefined && { rootCertificate: files.caFile }),
  ...(files.certFile !== undefined && { certChain: files.certFile }),
  ...(files.keyFile !== undefined && { privateKey: files.keyFile }),
});

const optionOf: Record<keyof EtcdTls, string> = {
  rootCertificate: 'high-availability.etcd.ssl.ca-file',
  certChain: 'high-availability.etcd.ssl.cert-file',
  privateKey: 'high-availability.etcd.ssl.key-file',
};

export class EtcdCertificates implements Closeable {
  readonly #env: Env;
  readonly #files: EtcdSslFiles;
  readonly #reloadMs: number;
  readonly #onChange: (tls: EtcdTls) => void;
  #current: EtcdTls;
  #refused: EtcdTls | undefined;
  #cancelTimer: CancelTimer = () => undefined;
  #reading: Promise<void> = Promise.resolve();
  #closed = false;

  /** @throws CONFIG when a file is missing, cannot be read, or does not fit the others. */
  constructor(
    env: Env,
    files: EtcdSslFiles,
    options: { readonly reloadMs?: number; readonly onChange: (tls: EtcdTls) => void },
  ) {
    this.#env = env;
    this.#files = files;
    this.#reloadMs = options.reloadMs ?? reloadMs;
    this.#onChange = options.onChange;
    if ((files.certFile === undefined) !== (files.keyFile === undefined)) {
      const [given, missing] =
        files.certFile === undefined
          ? [optionOf.privateKey, optionOf.certChain]
          : [optionOf.certChain, optionOf.privateKey];
      throw new MillraceError('CONFIG', `${given} is set without ${missing}: set both, or none`);
    }
    this.#current = readNow(files);
    if (Object.keys(filesOf(files)).length > 0) this.#arm();
  }

  get current(): EtcdTls {
    return this.#current;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer();
    await this.#reading;
  }

  #arm(): void {
    this.#cancelTimer = this.#env.clock.setTimer(this.#reloadMs, () => {
      this.#reading = this.#reload().finally(() => {
        if (!this.#closed) this.#arm();
      });
    });
  }

  async #reload(): Promise<void> {
    const { log, metrics } = this.#env;
    let read: EtcdTls | undefined;
    try {
      const entries = Object.entries(filesOf(this.#files)).map(
        async ([part, path]) => [part, await readFile(path)] as const,
      );
      read = { ...this.#current, ...Object.fromEntries(await Promise.all(entries)) };
      if (this.#closed || isSame(read, this.#current)) return;
      check(read);
    } catch (err) {
      // Once per content: a rotation under way, or a mistake to be told.
      if (this.#closed || (read !== undefined && this.#refused && isSame(read, this.#refused))) {
        return;
      }
      this.#refused = read;
      log.warn(
        { event: 'etcd.certificates-unusable', err },
        'the changed certificates for etcd cannot be used; the ones before stay in use',
      );
      return;
    }
    this.#refused = undefined;
    this.#current = read;
    metrics.counter('etcdCertificateReloads').inc();
    log.info({ event: 'etcd.certificates-reloaded' }, 'certificates for etcd were read again');
    this.#onChange(read);
  }
}

function readNow(files: EtcdSslFiles): EtcdTls {
  const parts: { rootCertificate?: Buffer; privateKey?: Buffer; certChain?: Buffer } = {};
  for (const [part, path] of Object.entries(filesOf(files)) as [keyof EtcdTls, string][]) {
    try {
      parts[part] = readFileSync(path);
    } catch (cause) {
      throw new MillraceError('CONFIG', `${optionOf[part]} names ${path}, which cannot be read`, {
        cause,
      });
    }
  }
  const tls = { rootCertificate: Buffer.from(rootCertificates.join('\n')), ...parts };
  try {
    check(tls);
  } catch (cause) {
    throw new MillraceError(
      'CONFIG',
      `the files of high-availability.etcd.ssl are not usable: ${(cause as Error).message}`,
      { cause },
    );
  }
  return tls;
}

/** Throws OpenSSL's error when a part is no PEM, or the key is not that of the certificate. */
function check({ rootCertificate, privateKey, certChain }: EtcdTls): void {
  // Unlike for a key or certificate, OpenSSL takes text without any PEM for an empty list of authorities.
  if (!rootCertificate.includes('-----BEGIN ')) throw new Error('the ca-file holds no certificate');
  createSecureContext({
    ca: rootCertificate,
    ...(privateKey && { key: privateKey }),
    ...(certChain && { cert: certChain }),
  });
}

function isSame(a: EtcdTls, b: EtcdTls): boolean {
  const equal = (x: Buffer | undefined, y: Buffer | undefined): boolean =>
    x === undefined || y === undefined ? x === y : x.equals(y);
  return (
    equal(a.rootCertificate, b.rootCertificate) &&
    equal(a.privateKey, b.privateKey) &&
    equal(a.certChain, b.certChain)
  );
}
