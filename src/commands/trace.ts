import {Args, Command, Flags} from '@oclif/core'
import {EXIT_CODES, sourceFlags} from '../cli/flags.js'
import {getSnapshot} from '../cli/get-snapshot.js'
import {findTarget, nodesThatMatter, refuseUnknownNodes} from '../select.js'
import {terminal} from '../cli/terminal.js'
import {traceOptions} from '../cli/trace-options.js'
import {buildWorld} from '../engine.js'
import {SvcTraceError} from '../model/errors.js'
import type {Service} from '../model/kube.js'
import {gateOf, type FailOn} from '../report/gate.js'
import {formatIngressTrace, formatTrace} from '../report/trace-formats.js'
import {withLines} from '../snapshot/api-lines.js'
import {traceIngress} from '../trace-ingress.js'
import {trace, type TraceResult} from '../trace.js'

export default class Trace extends Command {
  static override summary = 'Trace one Service: the way of a packet through the nodes’ real rules, and what is wrong.'
  static override description = EXIT_CODES
  static override usage = ['NAME [-n NAMESPACE] [flags]', 'trace NAME [-n NAMESPACE] [flags]']
  static override examples = [
    '<%= config.bin %> web -n prod',
    '<%= config.bin %> web --from external -o wide',
    '<%= config.bin %> svc/web --to nodePort --node node2',
    '<%= config.bin %> prod/web --snapshot incident.tar.gz -o json',
    '<%= config.bin %> ingress/shop --host shop.example.com --path /cart',
  ]
  static override args = {
    name: Args.string({
      description: 'Service: NAME, svc/NAME, NAMESPACE/NAME or NAME.NAMESPACE; or ingress/NAME',
      required: true,
    }),
  }
  static override flags = {
    from: Flags.string({
      description:
        'where the packet starts: external, any-external, ADDRESS, CIDR, node/NAME, pod/NAME, pod/NAMESPACE/NAME',
    }),
    to: Flags.string({
      description:
        'only this frontend: clusterIP, nodePort, externalIP, loadBalancerIP, localhost, ADDRESS or ADDRESS:PORT',
    }),
    port: Flags.string({description: 'only this port of the Service: number, NodePort or name'}),
    host: Flags.string({description: 'with ingress/NAME: the host of the request'}),
    path: Flags.string({description: 'with ingress/NAME: the path of the request; default /'}),
    'all-nodes': Flags.boolean({
      description: 'in a large cluster read all nodes, not only those with endpoints and one more',
    }),
    output: Flags.string({
      char: 'o',
      description: 'form of the output',
      options: ['text', 'wide', 'json', 'yaml', 'name'],
      default: 'text',
    }),
    'fail-on': Flags.string({
      description: 'the least severity that makes the exit code 1',
      options: ['error', 'warning', 'info', 'never'],
      default: 'error',
    }),
    'allow-incomplete': Flags.boolean({description: 'exit 0 instead of 3 when something could not be read or decided'}),
    ...sourceFlags,
  }

  async run(): Promise<void> {
    const {args, flags} = await this.parse(Trace)
    const snapshot = await getSnapshot(flags, (api) =>
      flags['all-nodes'] ? undefined : nodesThatMatter(api, findTarget(api, args.name, flags).service, flags.from),
    )
    const {service, ingress} = findTarget(snapshot, args.name, flags)
    refuseUnknownNodes(snapshot, flags.node)
    const world = buildWorld(snapshot)
    const options = traceOptions(flags, world, service)
    const screen = terminal(flags)
    const lined = async (result: TraceResult): Promise<TraceResult> => ({
      ...result,
      findings: await withLines(result.findings, snapshot),
    })
    if (ingress) {
      const raw = traceIngress(snapshot, world, {...ingress, service, options})
      const way = {...raw, backend: await lined(raw.backend), ...(raw.entry ? {entry: await lined(raw.entry)} : {})}
      process.stdout.write(await formatIngressTrace(way, flags.output, screen))
      // a way whose beginning nobody knows is not healthy, it is not known
      return this.leave([...(way.entry ? [way.entry] : []), way.backend], flags, way.entry === undefined)
    }
    const result = await lined(trace(snapshot, world, {service, options}))
    if (result.paths.length === 0 && flags.to !== undefined)
      throw new SvcTraceError(
        'NotFound',
        `${service.id} has no frontend ${flags.to}`,
        'clusterIP, nodePort, externalIP, loadBalancerIP, localhost, or an address of the Service, with or without its port',
      )
    process.stdout.write(await formatTrace(result, flags.output, screen))
    this.leave([result], flags)
  }

  private leave(
    results: readonly TraceResult[],
    flags: {'fail-on': string; 'allow-incomplete': boolean},
    halfKnown = false,
  ): void {
    const open = results.some(
      ({service, paths, incomplete}) =>
        halfKnown ||
        incomplete.length > 0 ||
        (paths.length === 0 && hasWays(service)) ||
        paths.some(({parts}) => parts.some(({fates}) => fates.some(({outcome}) => outcome === 'unknown'))),
    )
    process.exitCode = gateOf(
      results.flatMap(({findings}) => findings),
      {failOn: flags['fail-on'] as FailOn, open: open && !flags['allow-incomplete']},
    )
  }
}

/** Ways that the flags left none of say nothing; Services without an address of their own have none to begin with. */
const hasWays = ({type, headless}: Service): boolean => type !== 'ExternalName' && !headless
