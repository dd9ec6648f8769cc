/**
 * A job file becomes one ES module with everything it imports, except Millrace itself, which every
 * process of the cluster has. The same sources at the same place give the same bytes.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Loader, type Message, type Plugin } from 'esbuild';
import { MillraceError } from '../base/errors.js';
import type { Digest } from '../base/ids.js';

export interface Bundle {
  readonly bytes: Uint8Array;
  readonly digest: Digest;
  /** What esbuild has to say, one line each with its place. */
  readonly warnings: readonly string[];
}

/** CommonJS dependencies call `require` for Node's modules; an ES module has none of its own. */
const banner =
  "import { createRequire as __millraceCreateRequire } from 'node:module'; const require = __millraceCreateRequire(import.meta['url']);";

const moduleUrl = '__millrace_module_url';
const moduleDirname = '__millrace_module_dirname';
const moduleFilename = '__millrace_module_filename';

/** FILE_NOT_FOUND when the file does not exist, JOB_INVALID when it does not parse or an import is not found. */
export async function bundleJob(file: string): Promise<Bundle> {
  const path = resolve(file);
  await requireFile(path);
  const result = await build({
    entryPoints: [path],
    absWorkingDir: dirname(path),
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    external: ['millrace', 'millrace/*'],
    banner: { js: banner },
    define: {
      'import.meta.url': moduleUrl,
      'import.meta.dirname': moduleDirname,
      'import.meta.filename': moduleFilename,
    },
    plugins: [keepModuleUrls],
    sourcemap: 'inline',
    sourcesContent: true,
    legalComments: 'none',
    logLevel: 'silent',
  }).catch((error: unknown) => {
    throw bundleError(path, error);
  });
  const bytes = result.outputFiles[0]?.contents ?? new Uint8Array();
  return {
    bytes,
    digest: createHash('sha256').update(bytes).digest('hex') as Digest,
    warnings: result.warnings.map(formatMessage),
  };
}

/** Files beside a module are found by its own URL, which bundling would change: each keeps its own. */
const keepModuleUrls: Plugin = {
  name: 'keep-module-urls',
  setup(pluginBuild) {
    pluginBuild.onLoad({ filter: /\.[cm]?[jt]sx?$/, namespace: 'file' }, async ({ path }) => {
      const text = await readFile(path, 'utf8');
      if (!text.includes('import.meta')) return undefined;
      const names = {
        [moduleUrl]: pathToFileURL(path).href,
        [moduleDirname]: dirname(path),
        [moduleFilename]: path,
      };
      const declarations = Object.entries(names).map(
        ([name, value]) => `const ${name} = ${JSON.stringify(value)};`,
      );
      // On the first line, so that line numbers stay.
      return {
        contents: declarations.join(' ') + text.replace(/^#!/, '//'),
        loader: loaderOf(path),
      };
    });
  },
};

function loaderOf(path: string): Loader {
  if (path.endsWith('x')) return path.endsWith('.tsx') ? 'tsx' : 'jsx';
  return /\.[cm]?ts$/.test(path) ? 'ts' : 'js';
}

export async function requireFile(path: string): Promise<void> {
  try {
    await readFile(path);
  } catch (cause) {
    throw new MillraceError('FILE_NOT_FOUND', `the job file ${path} cannot be read`, { cause });
  }
}

function bundleError(path: string, error: unknown): unknown {
  const messages = (error as { errors?: readonly Message[] } | undefined)?.errors;
  if (!Array.isArray(messages)) return error;
  const lines = (messages as readonly Message[]).map(formatMessage);
  return new MillraceError('JOB_INVALID', [`${path} cannot be bundled:`, ...lines].join('\n  '), {
    details: { problems: lines },
  });
}

function formatMessage({ location, text }: Message): string {
  if (location === null) return text;
  return `${location.file}:${location.line}:${location.column + 1} ${text}`;
}
