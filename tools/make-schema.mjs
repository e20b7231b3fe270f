// Writes the JSON schemas of our own reports into schema/, from the types in src/report. --check only compares.
import {readFileSync, writeFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {createGenerator} from 'ts-json-schema-generator'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const REPORTS = [
  ['check-report', 'PublicCheckReport'],
  ['trace-report', 'TraceReport'],
  ['diff-report', 'DiffReport'],
]

let stale = false
for (const [name, type] of REPORTS) {
  const schema = createGenerator({
    path: join(ROOT, `src/report/${name}.ts`),
    tsconfig: join(ROOT, 'tsconfig.json'),
    type,
    skipTypeCheck: true,
    additionalProperties: true,
  }).createSchema(type)
  const text = `${JSON.stringify({$id: `${name}.v1.schema.json`, ...schema}, undefined, 2)}\n`
  const file = join(ROOT, `schema/${name}.v1.schema.json`)
  if (!process.argv.includes('--check')) writeFileSync(file, text)
  else if (readFileSync(file, 'utf8') !== text) {
    console.error(`${file} does not fit the types: node tools/make-schema.mjs`)
    stale = true
  }
}
process.exitCode = stale ? 1 : 0
