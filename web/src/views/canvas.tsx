// A canvas that is drawn at the screen's own resolution, at most once per frame, and again when its size, the theme or
// the drawing changes. Pointer and arrow keys move over it alike.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { dark } from "../state";

export interface Spot {
  x: number;
  y: number;
  width: number;
  height: number;
}

interface Props {
  /** CSS pixels. */
  height: number;
  /** What a person who does not see it should know. */
  label: string;
  draw(context: CanvasRenderingContext2D, width: number, height: number): void;
  /** The pointer is here; null when it left. */
  onPoint?(spot: Spot | null): void;
  onPick?(spot: Spot): void;
  /** Arrow keys: how far, in columns and rows. */
  onMove?(columns: number, rows: number): void;
  onKeyPick?(): void;
}

export function Canvas({ height, label, draw, onPoint, onPick, onMove, onKeyPick }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const frame = useRef(0);
  const isDark = dark.value;

  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(canvas.current!.parentElement!);
    return () => observer.disconnect();
  }, []);

  const paint = (): void => {
    const element = canvas.current;
    if (!element || width === 0) return;
    const ratio = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (element.width !== w || element.height !== h) Object.assign(element, { width: w, height: h });
    const context = element.getContext("2d")!;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(context, width, height);
  };
  const painter = useRef(paint);
  painter.current = paint;
  useLayoutEffect(() => {
    if (frame.current) return;
    frame.current = requestAnimationFrame(() => {
      frame.current = 0;
      painter.current();
    });
  }, [draw, width, height, isDark]);
  useLayoutEffect(() => () => cancelAnimationFrame(frame.current), []);

  const spot = (event: PointerEvent | MouseEvent): Spot => ({ x: event.offsetX, y: event.offsetY, width, height });
  const moves: Record<string, [number, number]> = {
    ArrowLeft: [-1, 0],
    ArrowRight: [1, 0],
    ArrowUp: [0, -1],
    ArrowDown: [0, 1],
  };
  return (
    <canvas
      ref={canvas}
      style={{ height: `${height}px` }}
      role="img"
      aria-label={label}
      tabIndex={onMove ? 0 : undefined}
      class={onPick ? "pickable" : undefined}
      onPointerMove={onPoint && ((event) => onPoint(spot(event)))}
      onPointerLeave={onPoint && (() => onPoint(null))}
      onBlur={onPoint && (() => onPoint(null))}
      onClick={onPick && ((event) => onPick(spot(event)))}
      onKeyDown={
        onMove &&
        ((event) => {
          const move = moves[event.key];
          if (move) {
            event.preventDefault();
            onMove(...move);
          } else if (event.key === "Enter") onKeyPick?.();
          else if (event.key === "Escape") onPoint?.(null);
        })
      }
    />
  );
}
