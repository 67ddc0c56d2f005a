// The page's icons: 20 by 20, drawn with the text's color, hidden from screen readers (their buttons have names).
import type { ComponentChildren } from "preact";

const icon = (children: ComponentChildren) => () => (
  <svg
    class="icon"
    viewBox="0 0 20 20"
    width="20"
    height="20"
    fill="none"
    stroke="currentColor"
    stroke-width="1.6"
    stroke-linecap="round"
    stroke-linejoin="round"
    aria-hidden="true"
  >
    {children}
  </svg>
);

export const DownloadIcon = icon(<path d="M10 3v9m-4-3.5 4 4 4-4M3.5 16.5h13" />);
export const FolderIcon = icon(
  <path d="M2.5 15.5v-10a1 1 0 0 1 1-1h4l2 2.5h7a1 1 0 0 1 1 1v7.5a1 1 0 0 1-1 1h-13a1 1 0 0 1-1-1Z" />,
);
export const CloseIcon = icon(<path d="m5 5 10 10M15 5 5 15" />);
export const BookIcon = icon(
  <path d="M10 5.5C8.5 4 6 3.5 3 3.5v11c3 0 5.5.5 7 2 1.5-1.5 4-2 7-2v-11c-3 0-5.5.5-7 2Zm0 0v11" />,
);
export const SunIcon = icon(
  <>
    <circle cx="10" cy="10" r="3.2" />
    <path d="M10 2.5v1.5m0 12v1.5m7.5-7.5H16M4 10H2.5m12.8-5.3-1 1m-8.6 8.6-1 1m10.6 0-1-1M5.7 5.7l-1-1" />
  </>,
);
export const MoonIcon = icon(<path d="M16.5 11.8A6.8 6.8 0 0 1 8.2 3.5a6.8 6.8 0 1 0 8.3 8.3Z" />);
export const AutoIcon = icon(
  <>
    <circle cx="10" cy="10" r="6.5" />
    <path d="M10 3.5a6.5 6.5 0 0 1 0 13Z" fill="currentColor" />
  </>,
);
export const TableIcon = icon(<path d="M3 4.5h14v11H3zM3 8.2h14M3 11.8h14M8 4.5v11" />);
export const ChartIcon = icon(<path d="M3.5 16.5h13M5.5 13.5v-4m4 4v-9m4 9v-6" />);
export const LinkIcon = icon(
  <path d="M8.5 11.5a3 3 0 0 0 4.2 0l2.6-2.6a3 3 0 0 0-4.2-4.2l-.9.9m1.3 2.9a3 3 0 0 0-4.2 0l-2.6 2.6a3 3 0 0 0 4.2 4.2l.9-.9" />,
);
export const TerminalIcon = icon(<path d="M2.5 4h15v12h-15zM5.5 7.5 8 10l-2.5 2.5m4 0h4" />);
export const BracesIcon = icon(
  <path d="M7.5 3.5c-2 0-2.5 1-2.5 2.5s.3 3.2-2 4c2.3.8 2 2.5 2 4s.5 2.5 2.5 2.5m5-13c2 0 2.5 1 2.5 2.5s-.3 3.2 2 4c-2.3.8-2 2.5-2 4s-.5 2.5-2.5 2.5" />,
);
export const WarnIcon = icon(<path d="M10 3 2.5 16.5h15L10 3Zm0 5v4m0 2.2v.1" />);
export const InfoIcon = icon(
  <>
    <circle cx="10" cy="10" r="7" />
    <path d="M10 9.2v4m0-6.5v.1" />
  </>,
);
export const LeftIcon = icon(<path d="m12 5-5 5 5 5" />);
export const RightIcon = icon(<path d="m8 5 5 5-5 5" />);

/** A square of weights with a bite out of it. */
export const Logo = () => (
  <svg class="logo" viewBox="0 0 32 32" width="30" height="30" aria-hidden="true">
    <defs>
      <mask id="bite">
        <rect width="32" height="32" fill="#fff" />
        <circle cx="27" cy="5" r="5.2" fill="#000" />
        <circle cx="20.5" cy="2.5" r="3.4" fill="#000" />
        <circle cx="29.5" cy="12" r="3.4" fill="#000" />
      </mask>
    </defs>
    <g mask="url(#bite)" fill="currentColor">
      {[0, 1, 2].flatMap((r) =>
        [0, 1, 2].map((c) => (
          <rect
            key={`${r}${c}`}
            x={2 + c * 9.7}
            y={2 + r * 9.7}
            width="8.5"
            height="8.5"
            rx="2.2"
            opacity={[1, 0.55, 0.8, 0.7, 1, 0.45, 0.5, 0.85, 1][r * 3 + c]}
          />
        )),
      )}
    </g>
  </svg>
);
