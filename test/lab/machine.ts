/** The kernel that the lab's nodes, pods and clients live in: this machine's own, or one in user-mode Linux. */
import {spawn, type ChildProcess} from 'node:child_process'
import {createInterface, type Interface} from 'node:readline'
import type {Listener} from './plan.js'

/** Where everything of a lab is, in a file system that only the lab sees. */
export const HOME = '/run/lab'
export const SSH_CONTROL = `${HOME}/ssh/control`
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export type Kernel = 'own' | 'uml'

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** One connection or datagram; an empty namespace is the hub's. */
export interface Shot {
  readonly id: string
  readonly namespace: string
  readonly proto: 'TCP' | 'UDP'
  readonly dst: string
  readonly dport: number
}

export interface Seen {
  readonly id: string
  readonly fate: 'ok' | 'refused' | 'timeout'
  /** What the server said, `NAME ADDRESS`; else an error. */
  readonly note: string
}

export function run(command: readonly string[], input = '', env: Record<string, string> = {}): Promise<Outcome> {
  const child = spawn(command[0]!, command.slice(1), {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: {...process.env, PATH: `${PATH}:${process.env['PATH'] ?? ''}`, ...env},
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdin.on('error', () => undefined).end(input)
  return new Promise((settle, fail) => child.on('error', fail).on('close', (code) => settle({code, stdout, stderr})))
}

export class Machine {
  readonly kernel: Kernel
  constructor(kernel: Kernel) {
    this.kernel = kernel
  }

  private prefix(): string[] {
    return this.kernel === 'own' ? [] : ['ssh', '-F', SSH_CONTROL, 'control']
  }

  /** Runs a shell script; what it must not do without is its own business (`set -e`). */
  shell(script: string): Promise<Outcome> {
    return run([...this.prefix(), ...(this.kernel === 'own' ? ['sh', '-s'] : ['sh -s'])], script)
  }

  /** The same; a failure is an exception. */
  async must(script: string): Promise<string> {
    const {code, stdout, stderr} = await this.shell(`set -e\n${script}`)
    if (code === 0) return stdout
    throw new Error(`in the lab: ${stderr.trim().split('\n').slice(-3).join(' / ') || `rc=${code}`}`)
  }

  /** A shell script in the network namespace of a node or pod. */
  inside(namespace: string, script: string): Promise<Outcome> {
    return run([...this.prefix(), 'ip', 'netns', 'exec', namespace, 'sh', '-s'], script)
  }

  agent(): Promise<Agent> {
    const python = ['/usr/bin/python3', `${HOME}/agent.py`]
    const [command, ...args] = [...this.prefix(), ...python]
    const child = spawn(command!, args, {stdio: ['pipe', 'pipe', 'inherit']})
    return Agent.start(child)
  }
}

/** A process inside the kernel that opens sockets in any namespace (agent.py). */
export class Agent {
  private readonly child: ChildProcess
  private readonly lines: Interface
  private readonly waiting: {settle: (answer: unknown) => void; fail: (error: Error) => void}[] = []

  private constructor(child: ChildProcess) {
    this.child = child
    this.lines = createInterface(child.stdout!)
    this.lines.on('line', (line) => this.waiting.shift()?.settle(JSON.parse(line)))
    child.on('error', (error) => this.end(error))
    child.on('close', (code) => this.end(new Error(`the lab's agent ended (${code})`)))
    child.stdin!.on('error', () => undefined)
  }

  static async start(child: ChildProcess): Promise<Agent> {
    const agent = new Agent(child)
    await agent.answer()
    return agent
  }

  private end(error: Error): void {
    for (const {fail} of this.waiting.splice(0)) fail(error)
  }

  private answer(): Promise<unknown> {
    return new Promise((settle, fail) => this.waiting.push({settle, fail}))
  }

  private async ask(job: Record<string, unknown>): Promise<unknown> {
    if (this.child.exitCode !== null) throw new Error("the lab's agent is gone")
    this.child.stdin!.write(`${JSON.stringify(job)}\n`)
    const answer = await this.answer()
    if (typeof answer === 'object' && answer !== null && 'error' in answer) throw new Error(String(answer.error))
    return answer
  }

  async namespaces(names: readonly string[]): Promise<void> {
    await this.ask({do: 'namespaces', names})
  }

  /** What could not be bound, and why. */
  async listen(listeners: readonly (Listener & {readonly http?: string})[]): Promise<string[]> {
    return (await this.ask({do: 'listen', listeners})) as string[]
  }

  /** Nobody listens in that namespace any more. */
  async mute(namespace: string): Promise<void> {
    await this.ask({do: 'mute', namespace})
  }

  /** Sends all at once; silence for `timeout` seconds is a fate as well. */
  async probe(shots: readonly Shot[], timeout: number): Promise<Seen[]> {
    return (await this.ask({do: 'probe', shots, timeout})) as Seen[]
  }

  stop(): void {
    this.child.kill('SIGKILL')
  }
}
