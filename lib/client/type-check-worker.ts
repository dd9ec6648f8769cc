/** The TypeScript compiler on one job file; entry of the worker that type-check.ts starts. */
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';
import ts from 'typescript';
import { packageRoot } from './package-root.js';
import { Answers } from './remembered-verdicts.js';
import type { TypeCheckRequest, TypeProblem } from './type-check.js';

/** The compiler asks for files through these functions only. */
type FileQuestions = Pick<
  ts.System,
  'fileExists' | 'directoryExists' | 'readFile' | 'getDirectories' | 'realpath'
>;

/** With the job's own tsconfig.json if there is one, else strictly. Synchronous and slow. */
function findTypeProblems(request: TypeCheckRequest): TypeProblem[] {
  const { file, workingDirectory } = request;
  const answers = new Answers();
  // Another compiler or other options may come to another verdict.
  for (const path of [createRequire(import.meta.url).resolve('typescript'), import.meta.url])
    answers.note('content', path.startsWith('file:') ? fileURLToPath(path) : path);
  const files = notedIn(answers);
  const { options, problems } = compilerOptions(file, files);
  // Not a copy: the host's own functions call each other through it.
  const host = Object.assign(ts.createCompilerHost(options), files, {
    getCurrentDirectory: () => workingDirectory,
  });
  const program = ts.createProgram([file], options, host);
  const diagnostics = [
    ...problems,
    ...program.getOptionsDiagnostics(),
    ...program.getSyntacticDiagnostics(),
    ...program.getSemanticDiagnostics(),
  ];
  const errors = diagnostics.filter(({ category }) => category === ts.DiagnosticCategory.Error);
  if (errors.length === 0) answers.store(request);
  return errors.map((diagnostic) => describe(diagnostic, workingDirectory));
}

function notedIn(answers: Answers): FileQuestions {
  const { sys } = ts;
  return {
    fileExists: (path) => {
      answers.note('kind', path);
      return sys.fileExists(path);
    },
    directoryExists: (path) => {
      answers.note('kind', path);
      return sys.directoryExists(path);
    },
    readFile: (path, encoding) => {
      answers.note('content', path);
      return sys.readFile(path, encoding);
    },
    getDirectories: (path) => {
      answers.note('folders', path);
      return sys.getDirectories(path);
    },
    realpath: (path) => {
      answers.note('place', path);
      return sys.realpath?.(path) ?? path;
    },
  };
}

function compilerOptions(
  file: string,
  files: FileQuestions,
): {
  options: ts.CompilerOptions;
  problems: readonly ts.Diagnostic[];
} {
  const configFile = ts.findConfigFile(dirname(file), files.fileExists);
  const problems: ts.Diagnostic[] = [];
  let own: ts.CompilerOptions = {
    strict: true,
    target: ts.ScriptTarget.ES2023,
    lib: ['lib.es2023.d.ts'],
  };
  if (configFile !== undefined) {
    const read = ts.readConfigFile(configFile, files.readFile);
    if (read.error !== undefined) problems.push(read.error);
    // The files of the project are not the job's: only the options matter.
    const host: ts.ParseConfigHost = { ...ts.sys, ...files, readDirectory: () => [] };
    own = ts.parseJsonConfigFileContent(read.config, host, dirname(configFile)).options;
  }
  return { options: { ...withoutOutput(own), ...forced(own, files) }, problems };
}

/** What concerns output would only get in the way: rootDir would even lead `millrace` to its sources. */
function withoutOutput(options: ts.CompilerOptions): ts.CompilerOptions {
  const dropped = new Set([
    ...[
      'outDir',
      'outFile',
      'rootDir',
      'rootDirs',
      'declaration',
      'declarationDir',
      'declarationMap',
    ],
    ...[
      'composite',
      'incremental',
      'tsBuildInfoFile',
      'sourceMap',
      'inlineSourceMap',
      'emitDeclarationOnly',
    ],
  ]);
  return Object.fromEntries(Object.entries(options).filter(([key]) => !dropped.has(key)));
}

function forced(own: ts.CompilerOptions, files: FileQuestions): ts.CompilerOptions {
  const root = packageRoot();
  const types = join(root, 'build/lib');
  const nodeTypes = nodeTypesFolder(root, files);
  return {
    noEmit: true,
    skipLibCheck: true,
    // As esbuild sees it: one ES module, whatever the package.json near it says.
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    moduleDetection: ts.ModuleDetectionKind.Force,
    allowImportingTsExtensions: true,
    // `millrace` is this installation's, whether or not the job's folder has one: as at run time.
    paths: {
      ...own.paths,
      millrace: [join(types, 'index.d.ts')],
      'millrace/testing': [join(types, 'testing/index.d.ts')],
    },
    ...(nodeTypes !== undefined && {
      typeRoots: [...(own.typeRoots ?? []), nodeTypes],
      types: own.types ?? ['node'],
    }),
  };
}

/** Node's types of the job's project or, failing that, those that came with this installation. */
function nodeTypesFolder(root: string, files: FileQuestions): string | undefined {
  for (let folder = root; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules/@types');
    if (files.directoryExists(join(candidate, 'node'))) return candidate;
    if (dirname(folder) === folder) return undefined;
  }
}

function describe(diagnostic: ts.Diagnostic, workingDirectory: string): TypeProblem {
  const message = `TS${diagnostic.code}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n    ')}`;
  const { file, start } = diagnostic;
  if (file === undefined || start === undefined) return { place: 'tsconfig', message };
  const { line, character } = file.getLineAndCharacterOfPosition(start);
  const shown = relative(workingDirectory, file.fileName);
  const path = shown.startsWith('..') ? file.fileName : shown;
  return { place: `${path}:${line + 1}:${character + 1}`, message };
}

parentPort?.postMessage(findTypeProblems(workerData as TypeCheckRequest));
