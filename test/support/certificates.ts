/** Certificates for tests, as PEM files: an authority, and what it signs. Nothing needs openssl on the machine. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
  type JsonGeneralName,
} from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const { subtle } = webcrypto;
type KeyPair = Awaited<ReturnType<typeof newKeys>>;

const newKeys = (): Promise<webcrypto.CryptoKeyPair> =>
  subtle.generateKey(algorithm, true, ['sign', 'verify']);

export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

const validity = (): { notBefore: Date; notAfter: Date } => ({
  notBefore: new Date(Date.now() - 60_000),
  notAfter: new Date(Date.now() + 24 * 3_600_000),
});

let lastSerial = Date.now();
const nextSerial = (): string => {
  lastSerial += 1;
  const hex = lastSerial.toString(16);
  return hex.length % 2 === 0 ? hex : `0${hex}`;
};

export class TestAuthority {
  readonly caFile: string;
  readonly #folder: string;
  readonly #name: string;
  readonly #keys: KeyPair;

  private constructor(folder: string, name: string, keys: KeyPair) {
    this.#folder = folder;
    this.#name = name;
    this.#keys = keys;
    this.caFile = join(folder, `${name}.pem`);
  }

  static async create(folder: string, name = 'ca'): Promise<TestAuthority> {
    const keys = await newKeys();
    const authority = new TestAuthority(folder, name, keys);
    const certificate = await X509CertificateGenerator.createSelfSigned({
      serialNumber: nextSerial(),
      name: `CN=${name}`,
      ...validity(),
      signingAlgorithm: algorithm,
      keys,
      extensions: [
        new BasicConstraintsExtension(true, 1, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      ],
    });
    writeFileSync(authority.caFile, certificate.toString('pem'));
    return authority;
  }

  /** Writes `<file>.pem` and `<file>-key.pem`; with `hosts` for a server. The common name is etcd's user name. */
  async issue(
    file: string,
    commonName: string,
    hosts: readonly string[] = [],
  ): Promise<CertificateFiles> {
    const keys = await newKeys();
    const names = hosts.map((value): JsonGeneralName => ({
      type: /^[\d.]+$/.test(value) ? 'ip' : 'dns',
      value,
    }));
    const certificate = await X509CertificateGenerator.create({
      serialNumber: nextSerial(),
      subject: `CN=${commonName}`,
      issuer: `CN=${this.#name}`,
      ...validity(),
      signingAlgorithm: algorithm,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      extensions: [
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        ...(names.length > 0 ? [new SubjectAlternativeNameExtension(names)] : []),
      ],
    });
    const pkcs8 = await subtle.exportKey('pkcs8', keys.privateKey);
    const files = {
      certFile: join(this.#folder, `${file}.pem`),
      keyFile: join(this.#folder, `${file}-key.pem`),
    };
    writeFileSync(files.certFile, certificate.toString('pem'));
    writeFileSync(files.keyFile, PemConverter.encode(pkcs8, PemConverter.PrivateKeyTag), {
      mode: 0o600,
    });
    return files;
  }
}
