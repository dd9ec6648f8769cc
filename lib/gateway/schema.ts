/** Untrusted messages: TypeBox schemas compiled by ajv, at first use or before. Unknown fields are tolerated. */
import { Type, type Static, type TSchema } from '@sinclair/typebox';
import { Ajv, type ValidateFunction } from 'ajv';
import { MillraceError, type Failure } from '../base/errors.js';

/** Decodes one kind of message: gives the same value back, typed, or throws RPC_PROTOCOL with the path of the fault. */
export interface MessageCheck<T> {
  (value: unknown): T;
  /** Does now what the first check would do, which takes 10 ms and more. */
  compile(): void;
}

export const Bytes = Type.Unsafe<Uint8Array>({ millraceBytes: true });
export const FailureSchema = Type.Unsafe<Failure>({ millraceFailure: true });
/** An id is a non-empty string; its brand is not visible at run time. */
export const Id = <T extends string>(): ReturnType<typeof Type.Unsafe<T>> =>
  Type.Unsafe<T>({ type: 'string', minLength: 1, maxLength: 512 });
export const Count = Type.Integer({ minimum: 0 });

/** Causes nest at most as deep as toFailure makes them; more is no failure of ours. */
const maxCauses = 16;

export function isFailure(value: unknown, depth = 0): value is Failure {
  if (typeof value !== 'object' || value === null || depth > maxCauses) return false;
  const { name, message, stack, cause } = value as Record<string, unknown>;
  return (
    typeof name === 'string' &&
    typeof message === 'string' &&
    (stack === undefined || typeof stack === 'string') &&
    (cause === undefined || isFailure(cause, depth + 1))
  );
}

function createAjv(): Ajv {
  // Watermarks are ±Infinity before the first and after the last record.
  const ajv = new Ajv({ strict: false, strictNumbers: false, allErrors: false });
  ajv.addKeyword({
    keyword: 'millraceBytes',
    validate: (_: unknown, value: unknown) => value instanceof Uint8Array,
  });
  ajv.addKeyword({
    keyword: 'millraceFailure',
    validate: (_: unknown, value: unknown) => isFailure(value),
  });
  return ajv;
}

/** One for all: making it costs as much as compiling a schema. */
let ajv: Ajv | undefined;

export function messageCheck<S extends TSchema>(name: string, schema: S): MessageCheck<Static<S>> {
  let validate: ValidateFunction | undefined;
  const compile = (): ValidateFunction => (validate ??= (ajv ??= createAjv()).compile(schema));
  const check = (value: unknown): Static<S> => {
    const validateNow = compile();
    if (validateNow(value)) return value;
    const [first] = validateNow.errors ?? [];
    const path =
      first === undefined || first.instancePath === '' ? '' : ` at ${first.instancePath}`;
    throw new MillraceError('RPC_PROTOCOL', `${name}${path} ${first?.message ?? 'is malformed'}`);
  };
  return Object.assign(check, { compile });
}
