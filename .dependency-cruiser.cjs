/** The walls between the rooms (docs/architecture.md). */
const only = (name, from, to) => ({
  name, severity: 'error', comment: `${from} may import only ${to.join(', ')} (besides model/ and util/)`,
  from: {path: `^src/${from}/`}, to: {path: '^src/', pathNot: `^src/(${[from, 'model', 'util', ...to].join('|')})/`},
})

module.exports = {
  forbidden: [
    {name: 'no-cycles', severity: 'error', from: {path: '^src/(?!dataplane/|parse/)'}, to: {circular: true, viaOnly: {dependencyTypesNot: ['type-only']}}},
    only('model', 'model', []), only('util', 'util', []), only('parse', 'parse', []), only('snapshot', 'snapshot', ['parse']), only('discovery', 'discovery', ['snapshot']),
    only('kube', 'kube', ['snapshot']), only('nodes', 'nodes', ['snapshot', 'discovery']), only('dataplane', 'dataplane', ['snapshot', 'parse']),
    only('intent', 'intent', ['snapshot']), only('checks', 'checks', ['snapshot', 'parse', 'dataplane', 'intent', 'discovery']),
    {name: 'report-reads-results', severity: 'error', comment: 'reporters read results only', from: {path: '^src/report/'}, to: {path: '^src/(parse|kube|nodes|dataplane|intent|cli|commands)/'}},
    {name: 'client-node-only-in-kube', severity: 'error', from: {pathNot: '^src/kube/'}, to: {path: 'node_modules/@kubernetes/'}},
    {name: 'ssh2-only-in-nodes', severity: 'error', from: {pathNot: '^src/nodes/'}, to: {path: 'node_modules/ssh2/'}},
    {name: 'io-only-at-the-edges', severity: 'error', from: {path: '^src/', pathNot: '^src/(kube|nodes|snapshot|cli|commands)/'}, to: {dependencyTypes: ['core'], path: '^(node:)?(fs|net|http|https|child_process|dns|tls)'}},
    {name: 'no-test-in-src', severity: 'error', from: {path: '^src/'}, to: {path: '^test/'}},
  ],
  options: {tsPreCompilationDeps: true, tsConfig: {fileName: 'tsconfig.json'}, doNotFollow: {path: 'node_modules'}, enhancedResolveOptions: {exportsFields: ['exports'], conditionNames: ['import', 'require', 'node', 'default']}},
}
