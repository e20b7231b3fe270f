import type {Journey} from './journey.js'
import type {Walker} from './walker.js'
import type {World} from './world.js'

/** One of the places that a journey passes; they hand the packet to each other by way of it. */
export abstract class JourneyPart {
  protected readonly journey: Journey

  constructor(journey: Journey) {
    this.journey = journey
  }

  protected get world(): World {
    return this.journey.world
  }

  protected get walker(): Walker {
    return this.journey.walker
  }
}
